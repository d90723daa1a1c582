"""A store in a bucket, over S3 as it is spoken: kills, races, and a service that goes away and comes back."""

import importlib.util
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from mibench.cli import main
from mibench.errors import StoreError
from mibench.plan import build_plan
from mibench.runner import Event, TaskDone, run
from mibench.store import Artifact, Store
from mibench.store_root import CACHE_VARIABLE
from mibench.suite import Suite

MakeSuite = Callable[..., Suite]
KEY = "ab" * 32
NEEDED = ("moto", "flask", "flask_cors", "s3fs")
pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED),
    reason="pip install s3fs 'moto[s3]' flask flask-cors",
)
SUITE = """
name = "toy"
metrics = ["mc_all", "aa"]
[data]
size = 16
channels = 1
private = 3
private_images = 4
test_images = 2
public = 4
public_images = 2
defender = 2
defender_images = 2
[targets]
protected = 1
bystanders = 1
attacked = 2
images = 2
[victim]
net = "mlp"
width = 8
recipe = { epochs = 2, batch = 8 }
[judge]
net = "softmax_regression"
recipe = { epochs = 2, batch = 8 }
[attacks.mean_face]
[defenses.none]
"""


class Relay:
    """Passes what comes on a port of its own to another port, until it is cut; then nobody answers there."""

    def __init__(self, target: int) -> None:
        self.target, self.port = target, 0
        self.open()

    def open(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", self.port))
        self.port = self.listening.getsockname()[1]
        self.ends: set[socket.socket] = set()
        threading.Thread(target=self._serve, args=(self.listening,), daemon=True).start()

    def cut(self) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        for end in list(self.ends):
            end.close()

    def _serve(self, listening: socket.socket) -> None:
        while True:
            try:
                near, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._pass, args=(near,), daemon=True).start()

    def _pass(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self.target)) as far:
            self.ends |= {near, far}
            with selectors.DefaultSelector() as ready:
                try:
                    ready.register(near, selectors.EVENT_READ, far)
                    ready.register(far, selectors.EVENT_READ, near)
                    while True:
                        for key, _ in ready.select():
                            data = key.fileobj.recv(2**16)  # type: ignore[union-attr]
                            if not data:
                                return
                            key.data.sendall(data)
                except (OSError, ValueError):  # cut
                    return
                finally:
                    self.ends -= {near, far}


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    """The way to a service that speaks S3."""
    script = Path(__file__).with_name("bucket_service.py")
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout is not None
            yield Relay(int(service.stdout.readline()))
        finally:
            service.kill()


@pytest.fixture
def url(relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store in a new bucket."""
    given = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{relay.port}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
        CACHE_VARIABLE: str(tmp_path / "cache"),
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    import s3fs

    bucket = f"faces-{time.monotonic_ns()}"
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(bucket)
    return f"s3://{bucket}/store"


def start(script: str, *args: str) -> subprocess.Popen[str]:
    """A process that runs a script with these arguments; it can be talked to."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_records_are_those_of_a_folder_and_nothing_is_done_twice(
    make_suite: MakeSuite, tmp_path: Path, url: str
) -> None:
    plan = build_plan(make_suite(attacks={"toy_scores": {}, "mean_face": {}}))
    records = run(plan, Store(tmp_path / "store"), results=tmp_path / "folder")
    assert run(plan, Store(url), results=tmp_path / "bucket") == records
    files = [tmp_path / name / "records.jsonl" for name in ("folder", "bucket")]
    assert files[0].read_bytes() == files[1].read_bytes()
    folder, bucket = Store(tmp_path / "store"), Store(url)
    for key in plan.tasks:
        one, other = folder.get(key), bucket.get(key)
        assert one is not None
        assert other is not None
        assert (one.value, one.task) == (other.value, other.task)
        assert save(one.tensors) == save(other.tensors)
    events: list[Event] = []
    assert run(plan, Store(url), on_event=events.append) == records
    assert {event.how for event in events if isinstance(event, TaskDone)} == {"hit"}
    assert bucket.files is not None
    assert bucket.files.names("leases") == []


PUT = f"""
import sys, time, torch
from mibench.store import Artifact, Store
store = Store(sys.argv[1])
def hang(*_):
    print("uploaded", flush=True)
    time.sleep(600)
store.files.create = hang
store.put("{KEY}", Artifact({{"a": torch.ones(1000)}}, {{"v": 1}}))
"""


def test_kill_in_the_middle_of_a_put_leaves_nothing_to_read(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with start(PUT, url) as process:
        assert hear(process) == "uploaded"
        process.send_signal(signal.SIGKILL)
    store = Store(url)
    assert store.files is not None
    assert len(store.files.names()) == 1
    assert not store.contains(KEY)
    assert store.get(KEY) is None
    store.put(KEY, Artifact({"a": torch.zeros(3)}, {"v": 2}))
    got = store.get(KEY)
    assert got is not None
    assert (got.value, got.tensors["a"].tolist()) == ({"v": 2}, [0.0, 0.0, 0.0])
    assert caplog.text == ""


RACE = """
import sys
from mibench.lease_objects import ObjectLeases
from mibench.remote_files import RemoteFiles
from mibench.store import Artifact, Store
files = RemoteFiles(sys.argv[1])
leases, store = ObjectLeases(files, look_s=0), Store(sys.argv[1])
files.read("warm")
print("ready", flush=True)
for line in sys.stdin:
    if line.startswith("put"):
        store.put(line.split()[1], Artifact({}, {"who": sys.argv[2]}))
        print(store.get(line.split()[1]).value["who"], flush=True)
    else:
        print(leases.take(line.strip()) is not None, flush=True)
"""


def test_of_processes_that_race_for_a_key_one_gets_it_and_one_is_kept(url: str) -> None:
    rivals = [start(RACE, url, str(i)) for i in range(2)]
    try:
        assert [hear(rival) for rival in rivals] == ["ready"] * 2
        for i in range(5):
            answers = []
            for line in (f"{i:064x}\n", f"put {i:064x}\n"):
                for rival in rivals:
                    assert rival.stdin is not None
                    rival.stdin.write(line)
                    rival.stdin.flush()
                answers.append(sorted(hear(rival) for rival in rivals))
            assert answers[0] == ["False", "True"]
            assert answers[1] in (["0", "0"], ["1", "1"])
    finally:
        for rival in rivals:
            rival.kill()
            rival.communicate()


def test_a_service_that_goes_away_ends_a_run_with_a_sentence_and_the_next_goes_on(
    url: str,
    relay: Relay,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "toy.toml").write_text(SUITE, encoding="utf-8")
    command = ["run", str(tmp_path / "toy.toml"), "--device", "cpu", "--jobs", "1", "--out", str(tmp_path)]
    put = Store.put
    puts: list[str] = []

    def cut(store: Store, key: str, artifact: Artifact) -> None:
        if len(puts) == 3:
            relay.cut()
        puts.append(key)
        put(store, key, artifact)

    monkeypatch.setattr(Store, "put", cut)
    assert main([*command, "--store", url]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith(f"store {url}: cannot be ")
    assert told.endswith("Check the network and the service; the same command goes on from here.")
    monkeypatch.setattr(Store, "put", put)
    relay.open()
    assert main([*command, "--store", url]) == 0
    first = (tmp_path / "toy" / "records.jsonl").read_bytes()
    done = [json.loads(line)["key"] for line in (tmp_path / "toy" / "costs.jsonl").read_text().splitlines()]
    assert set(puts[:3]) <= set(done)
    assert main([*command[:-1], str(tmp_path / "folder")]) == 0
    assert (tmp_path / "folder" / "toy" / "records.jsonl").read_bytes() == first


def test_a_bucket_that_is_not_there_is_told(url: str) -> None:
    elsewhere = url.replace("faces-", "places-")
    with pytest.raises(StoreError, match=rf"^store {elsewhere}: .* bucket or folder is not there"):
        Store(elsewhere).present([KEY])
    with pytest.raises(StoreError, match="bucket or folder is not there"):
        Store(elsewhere).put(KEY, Artifact())
