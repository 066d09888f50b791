"""The sweeper takes what nobody needs and nothing else; the verifier finds every damage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from storage import checkpoints, lake, objects, records, runs
from storage.artifacts import ArtifactRef, PolicyCheckpoint, StageOutput
from storage.records import Record
from storage.schema import Sample
from storage.upkeep import collect_garbage, verify
from tasks.stage.calls import run_recording
from tests.support.stage_records import called

pytestmark = pytest.mark.usefixtures("home")


def made(name: str) -> ArtifactRef:
    return lake.publish(Sample, [Sample(name, "i", "p", "train")])


def recorded(key: str, ref: ArtifactRef) -> ArtifactRef:
    output = StageOutput(refs={"x": ref})
    records.store("sample", key, Record({"stage": "sample"}, "", output, 0.0))
    return ref


def files(home: Path) -> set[str]:
    return {path.name for path in home.rglob("*") if path.is_file()}


def test_orphans_go_and_what_is_recorded_stays(home: Path) -> None:
    orphan, cached, used = made("orphan"), recorded("sample-1", made("cached")), made("used")
    run_id = runs.start_run("demo", "{}")
    runs.record_stage(called(run_id, 1, None, used))
    (home / "tmp" / "unfinished").write_text("x")
    (home / "locks" / "sample-1.lock").touch()
    before = files(home)
    planned = collect_garbage(dry_run=True)
    assert files(home) == before
    assert collect_garbage() == planned
    assert (planned.objects, planned.unfinished, planned.records, planned.runs) == (1, 1, 0, [])
    assert planned.size > orphan.size
    assert before - files(home) == {orphan.path.name, "unfinished", "sample-1.lock"}
    cached.verify()
    used.verify()


def test_older_runs_go_with_what_only_they_used(home: Path) -> None:
    refs = [recorded(f"sample-{i}", made(str(i))) for i in range(3)]
    shared = made("shared")
    ids = []
    for i, ref in enumerate(refs):
        ids.append(runs.start_run(f"demo {i}", "{}"))
        runs.record_stage(called(ids[-1], 1, None, ref, shared, key=f"sample-{i}"))
    # Started within one millisecond: order by name, which holds the number.
    report = collect_garbage(keep_runs=1)
    assert report.runs == sorted(ids[:2])
    assert report.records == 2
    assert [ref.path.exists() for ref in refs] == [False, False, True]
    shared.verify()
    assert [run.run_id for run in runs.list_runs()] == ids[2:]


def test_a_running_run_keeps_the_sweeper_out() -> None:
    with run_recording(runs.start_run("demo", "{}")), pytest.raises(objects.StoreInUse, match="wait until it ends"):
        collect_garbage()
    collect_garbage()


def test_checkpoints_are_swept_whole_and_folders_of_others_never(tmp_path: Path) -> None:
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model").write_text(name)
    theirs = checkpoints.import_checkpoint(PolicyCheckpoint, "theirs", tmp_path)
    ours = checkpoints.publish_folder(PolicyCheckpoint, tmp_path / "ours")
    assert collect_garbage().objects == 1
    assert not checkpoints.folder(ours).exists()
    theirs.verify(full=True)


def test_verify_finds_damage_and_the_next_look_does_too(tmp_path: Path) -> None:
    whole, flipped, gone = (recorded(f"sample-{name}", made(name)) for name in ("whole", "flipped", "gone"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("w")
    checkpoint = checkpoints.publish_folder(PolicyCheckpoint, tmp_path / "model")
    assert verify().whole
    for path in (flipped.path, checkpoints.folder(checkpoint) / "weights"):
        data = bytearray(path.read_bytes())
        data[0] ^= 1
        path.write_bytes(data)
        objects.seal(path)  # the disk did it
    gone.path.unlink()
    flipped.verify()
    report = verify()
    assert report.artifacts == 3
    assert len(report.damaged) == 3
    assert any(str(flipped.path) in line for line in report.damaged)
    for ref in (flipped, checkpoint):
        with pytest.raises(objects.ArtifactDamaged):
            ref.verify()
    whole.verify()
    assert records.load("sample", "sample-flipped")[0] is None


def test_half_written_things_are_never_seen(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(objects, "flush", fail)
        made("x")
    assert not list((home / "objects").rglob("*.parquet"))
    assert collect_garbage().unfinished == 1


def test_a_record_is_plain_json_that_people_can_read(home: Path) -> None:
    recorded("sample-1", made("x"))
    text = json.loads((home / "cache" / "sample" / "sample-1.json").read_text())
    assert set(text) == {"identity", "label", "output", "seconds"}
