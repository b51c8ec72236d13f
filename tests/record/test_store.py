"""The record on disk: appended, fsynced, never rewritten; torn lines, foreign versions, full disks."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tokbench.errors import ExitCode, RecordError
from tokbench.record.observations import SCHEMA_VERSION, Event, MeterAbsent, RunEnded, RunStarted
from tokbench.record.store import (
    CONFIG_FILE,
    EVENTS_FILE,
    RunWriter,
    check_new_run,
    create_run,
    read_events,
    read_header,
)


def header(version: int = SCHEMA_VERSION) -> RunStarted:
    return RunStarted(schema_version=version, tokbench_version="0", config_sha256="c", seed=1, at_ns=5, utc="now")


def absent(number: int) -> MeterAbsent:
    return MeterAbsent(meter=f"m{number}", reason="é – “quoted”\nand a second line")


def written(folder: Path, *events: Event) -> Path:
    folder.mkdir(exist_ok=True)
    writer = RunWriter(folder)
    for event in events:
        writer.append(event)
    writer.close()
    return folder


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(RecordError) as caught:
        act()
    assert ExitCode.RECORD == caught.value.exit_code
    assert caught.value.fix
    return str(caught.value)


def test_events_are_read_as_they_were_written_one_a_line(tmp_path: Path) -> None:
    events = [header(), *(absent(number) for number in range(50)), RunEnded(reason="complete", at_ns=9)]
    folder = written(tmp_path / "run", *events)
    assert events == list(read_events(folder))
    assert 52 == (folder / EVENTS_FILE).read_bytes().count(b"\n")


def test_sync_puts_everything_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    writer = RunWriter(tmp_path)
    writer.append(header())
    writer.sync()
    size = (tmp_path / EVENTS_FILE).stat().st_size
    assert [size] == synced
    assert [header()] == list(read_events(tmp_path))
    writer.close()


def test_a_record_goes_on_where_it_stopped(tmp_path: Path) -> None:
    written(tmp_path, header())
    before = (tmp_path / EVENTS_FILE).read_bytes()
    written(tmp_path, absent(1))
    assert (tmp_path / EVENTS_FILE).read_bytes().startswith(before)
    assert [header(), absent(1)] == list(read_events(tmp_path))


def cut(folder: Path, drop: int) -> None:
    path = folder / EVENTS_FILE
    path.write_bytes(path.read_bytes()[:-drop])


@pytest.mark.parametrize("drop", [2, 3, 10, 40, 60])
def test_a_torn_last_line_is_passed_over_and_the_next_event_begins_a_line(tmp_path: Path, drop: int) -> None:
    written(tmp_path, header(), absent(1), absent(2))
    cut(tmp_path, drop)
    assert [header(), absent(1)] == list(read_events(tmp_path))
    written(tmp_path, absent(3))
    assert [header(), absent(1), absent(3)] == list(read_events(tmp_path))


def test_a_last_line_that_lacks_only_its_end_is_kept(tmp_path: Path) -> None:
    written(tmp_path, header(), absent(1))
    cut(tmp_path, 1)
    assert [header(), absent(1)] == list(read_events(tmp_path))
    written(tmp_path, absent(2))
    assert [header(), absent(1), absent(2)] == list(read_events(tmp_path))


def test_a_line_torn_inside_a_character_is_passed_over(tmp_path: Path) -> None:
    written(tmp_path, header(), absent(1))
    path = tmp_path / EVENTS_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex("é".encode()) + 1])
    assert [header()] == list(read_events(tmp_path))


@pytest.mark.parametrize("tail", [b"\0" * 100, b'{"event":"meter_abs\0\0\0\0', b"\0\0\0\n"])
def test_zeros_that_a_power_cut_leaves_are_passed_over(tmp_path: Path, tail: bytes) -> None:
    written(tmp_path, header())
    with (tmp_path / EVENTS_FILE).open("ab") as file:
        file.write(tail)
    assert [header()] == list(read_events(tmp_path))
    written(tmp_path, absent(1))
    assert [header(), absent(1)] == list(read_events(tmp_path))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"meter":', b'"metre":'),
        (b'"meter":', b"meter:"),
        (b'"event":"meter_absent"', b'"event":"nothing"'),
        (b'"reason"', b'"joules":1,"reason"'),
        (b'{"event"', b'[{"event"'),
        (b'"m1"', b"1"),
    ],
)
def test_an_edited_line_is_refused_with_its_number(tmp_path: Path, old: bytes, new: bytes) -> None:
    written(tmp_path, header(), absent(1), RunEnded(reason="complete", at_ns=9))
    path = tmp_path / EVENTS_FILE
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    if new.startswith(b"["):
        path.write_bytes(path.read_bytes().replace(b"}\n", b"}]\n"))
        assert f"{EVENTS_FILE}:1: not an event" in refusal(lambda: list(read_events(tmp_path)))
    else:
        assert f"{EVENTS_FILE}:2: not an event" in refusal(lambda: list(read_events(tmp_path)))


@pytest.mark.parametrize(
    "line", [b"5\n", b"null\n", b"[]\n", b'"text"\n', b"[" * 100_000 + b"]" * 100_000 + b"\n", b"hello\n"]
)
def test_a_first_line_that_is_no_event_is_refused(tmp_path: Path, line: bytes) -> None:
    (tmp_path / EVENTS_FILE).write_bytes(line)
    assert f"{EVENTS_FILE}:1: not an event" in refusal(lambda: read_header(tmp_path))


def test_a_record_of_another_schema_is_refused_and_says_which(tmp_path: Path) -> None:
    written(tmp_path, header(version=99))
    assert f"schema version 99, this tokbench reads {SCHEMA_VERSION}" in refusal(lambda: read_header(tmp_path))


def test_a_record_of_a_later_schema_with_other_fields_is_refused_as_such(tmp_path: Path) -> None:
    line = header(version=99).model_dump_json().replace('"seed"', '"seeds"')
    (tmp_path / EVENTS_FILE).write_text(line + "\n", encoding="utf-8")
    assert "schema version 99" in refusal(lambda: read_header(tmp_path))


def test_no_record(tmp_path: Path) -> None:
    assert f"no record here ({EVENTS_FILE} is missing)" in refusal(lambda: list(read_events(tmp_path)))
    assert "no record here" in refusal(lambda: list(read_events(tmp_path / "none")))


@pytest.mark.parametrize("content", [b"", b"\n\n", b'{"event":"run_sta'])
def test_a_record_without_a_first_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / EVENTS_FILE).write_bytes(content)
    assert "the record has no first line" in refusal(lambda: read_header(tmp_path))


def test_a_record_that_does_not_begin_with_its_header(tmp_path: Path) -> None:
    written(tmp_path, absent(1), header())
    assert "the record has no first line" in refusal(lambda: read_header(tmp_path))


def test_a_record_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, header())

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert "cannot be read: Permission denied" in refusal(lambda: list(read_events(tmp_path)))


def test_a_disk_that_is_full_is_told_at_the_next_sync(tmp_path: Path) -> None:
    (tmp_path / EVENTS_FILE).symlink_to("/dev/full")
    writer = RunWriter(tmp_path)
    writer.append(header())
    said = refusal(writer.sync)
    assert "the record cannot be written: No space left on device" in said
    assert f"free disk space; what was written stays valid: `tokbench run --resume {tmp_path}`" in said
    assert "No space left" in refusal(lambda: writer.append(absent(1)))
    assert "No space left" in refusal(writer.close)


def test_a_disk_that_is_full_at_the_end_is_told_by_close(tmp_path: Path) -> None:
    """The last flush was once done in silence: a run ended with 0 and half a record."""
    (tmp_path / EVENTS_FILE).symlink_to("/dev/full")
    writer = RunWriter(tmp_path)
    writer.append(header())
    assert "No space left on device" in refusal(writer.close)


def test_a_disk_that_loses_the_last_bytes_is_told_by_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = RunWriter(tmp_path)
    writer.append(header())

    def lose(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", lose)
    assert "Input/output error" in refusal(writer.close)


def test_what_was_written_before_the_disk_was_full_is_kept_and_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RunWriter(tmp_path)
    writer.append(header())
    writer.sync()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        writer.append(absent(1))
        refusal(writer.sync)
        refusal(writer.close)
    assert header() == next(iter(read_events(tmp_path)))
    written(tmp_path, absent(2))
    assert absent(2) == list(read_events(tmp_path))[-1]


def test_closing_twice_does_nothing_and_a_closed_record_takes_no_event(tmp_path: Path) -> None:
    """`sync` after `close` once waited for ever."""
    writer = RunWriter(tmp_path)
    writer.close()
    writer.close()
    assert "the record is closed" in refusal(lambda: writer.append(header()))
    assert "the record is closed" in refusal(writer.sync)


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    assert "the record cannot be written: No such file" in refusal(lambda: RunWriter(tmp_path / "gone"))


def test_a_new_run_gets_its_folder_and_its_config(tmp_path: Path) -> None:
    create_run(tmp_path / "a" / "b", "name: é\n")
    assert "name: é\n" == (tmp_path / "a" / "b" / CONFIG_FILE).read_text(encoding="utf-8")


def test_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    create_run(tmp_path, "name: a\n")
    assert [CONFIG_FILE] == [path.name for path in tmp_path.iterdir()]


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x", encoding="utf-8")
    said = refusal(lambda: create_run(tmp_path, "name: a\n"))
    assert "there is already something here\n  fix: give another --out" in said
    assert f"`tokbench run --resume {tmp_path}`" in said
    assert ["precious"] == [path.name for path in tmp_path.iterdir()]


def test_a_file_or_a_dangling_link_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert "there is already something here" in refusal(lambda: create_run(tmp_path / "file", ""))
    assert "there is already something here" in refusal(lambda: create_run(tmp_path / "link", ""))
    assert "is not a folder" in refusal(lambda: create_run(tmp_path / "file" / "run", ""))


def test_a_name_that_the_system_refuses(tmp_path: Path) -> None:
    assert "File name too long" in refusal(lambda: create_run(tmp_path / ("a" * 300), ""))


def test_looking_whether_a_run_can_be_kept_writes_nothing(tmp_path: Path) -> None:
    check_new_run(tmp_path / "a" / "b")
    assert [] == list(tmp_path.iterdir())


def test_a_place_that_may_not_be_written_is_told_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "may not be written" in refusal(lambda: check_new_run(tmp_path / "a"))


def test_two_writers_on_one_record_are_refused(tmp_path: Path) -> None:
    first = RunWriter(tmp_path)
    with pytest.raises(RecordError, match="another tokbench is writing here"):
        RunWriter(tmp_path)
    first.close()
    RunWriter(tmp_path).close()
