# SPDX-License-Identifier: Apache-2.0
"""Restores the pages of a stack, or the files of a folder, in one command.

Each picture has a run of its own in a subfolder, as `denoise` alone would do
it, or all share one model. A picture that can not be restored is reported and
skipped; a repeated command goes on where an interrupted one has ended.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import pathlib
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tqdm

from tfvae.data import formats, images, stack_encoding, stacks
from tfvae.runs import config, identity, summaries
from tfvae.runs.denoise import (
    HALF_CYCLE,
    OF_MODEL,
    OUTPUT_SUFFIXES,
    check_inputs,
    check_kind,
    check_place,
    denoise,
    schedule_bindings,
)
from tfvae.runs.denoise_jointly import train_jointly
from tfvae.runs.kinds import PICTURES, Kind
from tfvae.runs.run_directory import RunDirectory, UnexpectedError

_IMAGE = "corrupted_image.image"
# What differs from picture to picture.
_OF_A_PICTURE = ("image", "clean", "mask", "page", "seed", "value_range")
# What a picture may fail of without stopping the others.
_FAILURES = (
    ImportError,
    OSError,
    RuntimeError,
    TypeError,
    UnexpectedError,
    ValueError,
)
_SEEDS_OF_A_FILE = 2**12
# Endings of which what is read can be written as well.
_ALWAYS_SUITABLE = (".png", ".tif", ".tiff", ".npy", ".jpg", ".jpeg", ".exr")


class Configuration(NamedTuple):
    """What is loaded anew for each picture."""

    gin_files: Sequence[str | os.PathLike[str]]
    gin_params: Sequence[str] = ()
    epochs: int | None = None
    """See `schedule_bindings`."""

    def load(
        self,
        run_dir: str | os.PathLike[str] | None,
        params: Sequence[str] = (),
        may_be_idle: Sequence[str] = (),
    ) -> None:
        """Replaces gin's configuration.

        Args:
          run_dir: Folder of the run that is to be configured.
          params: Bindings that override the others.
          may_be_idle: Names of parameters that need not act.
        """
        schedule = schedule_bindings(run_dir, self.epochs)
        config.load(
            self.gin_files,
            [*schedule, *self.gin_params, *params],
            function="denoise",
            may_be_idle=[*([HALF_CYCLE] if schedule else []), *may_be_idle],
        )


@dataclasses.dataclass(frozen=True)
class _Source:
    """An image file, and the pages of it that are to be restored.

    Attributes:
      name: Name of the file.
      path: Its path.
      folder: Its subfolder of the run folder.
      stack: Its pages.
      pages: Numbers of those to restore.
      output: The file to write, or None.
    """

    name: str
    path: str
    folder: str
    stack: stacks.Stack
    pages: tuple[int, ...]
    output: str | None

    @property
    def is_stack(self) -> bool:
        """Whether it has pages, rather than being one picture."""
        return not self.stack.is_plain

    def describe(self) -> str:
        """Says what its pages are, and what happens to each."""
        lines = f"{self.name}: {self.stack.describe()}"
        left = len(self.stack) - len(self.pages)
        if left:
            lines += (
                f"; {_count(len(self.pages), 'page')} restored, {left} copied "
                "unchanged"
            )
        return lines


class _Item(NamedTuple):
    """A picture to restore."""

    name: str
    folder: str
    """Its subfolder of the run folder."""
    arguments: dict[str, Any]
    """Arguments of `corrupted_image`."""
    output: str | None


class _Failures:
    """Why pictures can not be restored.

    Attributes:
      reasons: The reason by the name of the picture.
    """

    def __init__(self, explain: Callable[[str], str]) -> None:
        self.reasons: dict[str, str] = {}
        self._explain = explain

    def add(self, name: str, error: BaseException) -> None:
        """Notes and prints a reason; raises errors that concern everything."""
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise error
        # gin appends where it has called what.
        reason = self._explain(str(error).strip().partition("\n")[0])
        self.reasons[name] = reason
        print(f"{name} failed: {reason}", flush=True)


def has_many() -> bool:
    """Whether the configured image is a folder, or a file with axes."""
    image = config.value(_IMAGE)
    data = config.bindings(config.text()).get("experiment.data")
    if data != "@corrupted_image()" or not isinstance(image, str):
        return False
    if os.path.isdir(image):
        return True
    if config.value("corrupted_image.page") is not None:
        return False
    return os.path.isfile(image) and not _open(image).is_plain


def _open(image: str) -> stacks.Stack:
    return stacks.open_stack(
        image,
        axes=config.value("corrupted_image.axes"),
        channels=config.value("corrupted_image.channels"),
        crop=config.value("corrupted_image.crop"),
    )


def denoise_many(
    run_dir: str | os.PathLike[str],
    configuration: Configuration,
    *,
    pages: Sequence[int] | None = None,
    joint: bool = False,
    explain: Callable[[str], str] = str,
) -> None:
    """Restores all pages of a stack, or all pictures of a folder.

    The configured image, `denoise.output`, and perhaps the mask and the clean
    image are files with pages, or folders with files of the same names. With
    one model for all, the run folder is that of one training run, and has the
    pictures in pictures/.

    Args:
      run_dir: Folder of the run.
      configuration: What `denoise` is to do with each of them.
      pages: Numbers of the pages to restore; None for all. The others are
        copied unchanged.
      joint: Whether all pictures share one model.
      explain: From the message of an error to what is printed of it.

    Raises:
      ValueError: If there is nothing to restore, an argument is out of range,
        or pictures of different channels are to share a model.
      OSError: If an output can not be written.
      RuntimeError: At the end, if a picture could not be restored; its name
        and the reason are in the message.
    """
    configuration.load(run_dir)
    is_model = config.value("denoise.method") is None
    if joint and not is_model:
        raise ValueError(
            "`joint` needs a model of all pictures: `denoise.method` must be "
            "None, got local subspaces"
        )
    config.check("denoise", optional=() if is_model else OF_MODEL)
    given = config.value("denoise.output_std")
    if given is not None:
        raise ValueError(
            "`output_std` must not be given for several pictures, whose "
            "standard deviations are in uncertainty.npy in the folder of each, "
            f"got {given!r}"
        )
    failed = _Failures(explain)
    sources = _sources(pages, failed)
    items = []
    for source in sources:
        try:
            items.append((source, _items(source)))
        except _FAILURES as error:
            failed.add(source.name, error)
    settings = "one model for all" if joint else "a model for each"
    count = sum(len(one) for _, one in items) + len(failed.reasons)
    print(f"{_count(count, 'picture')}, {settings}", flush=True)
    if joint:
        folders = _restore_jointly(run_dir, configuration, items, failed)
    else:
        folders = _restore_alone(run_dir, configuration, items, failed)
    configuration.load(run_dir)
    for source, ones in items:
        found = {
            page: folders[item.folder]
            for page, item in zip(source.pages, ones, strict=True)
            if item.folder in folders
        }
        if found and (joint or source.is_stack):
            place = pathlib.Path(run_dir)
            if source.folder:
                place = place / ("pictures" if joint else "") / source.folder
            try:
                _write(source, found, place)
            except _FAILURES as error:
                failed.add(source.name, error)
    done = sum(item.folder in folders for _, ones in items for item in ones)
    ended = f"{done} of {count} restored"
    if failed.reasons:
        raise RuntimeError(f"{ended}; failed: {_reasons(failed.reasons)}")
    print(ended)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _reasons(failed: Mapping[str, str]) -> str:
    """Returns each reason once, after the names of those that fail of it."""
    names: dict[str, list[str]] = {}
    for name, reason in failed.items():
        names.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(ones)}: {why}" for why, ones in names.items())


def _sources(pages: Sequence[int] | None, failed: _Failures) -> list[_Source]:
    """Opens the configured image, or each file of a folder."""
    image = config.value(_IMAGE)
    output = config.value("denoise.output")
    if not os.path.isdir(image):
        source = _source(image, "", output, pages)
        print(source.describe(), flush=True)
        if output is not None:
            _check_output(source)
        return [source]
    found = sorted(
        name
        for name in os.listdir(image)
        if os.path.isfile(os.path.join(image, name)) and name[0] != "."
    )
    names = [one for one in found if one.lower().endswith(formats.SUFFIXES)]
    if not names:
        raise ValueError(
            "`image` must be a file or a folder of images, got the folder "
            f"{image!r} without any"
        )
    if len(names) < len(found):
        others = _count(len(found) - len(names), "other file")
        print(f"{others} left out, by the name no image")
    if output is not None:
        _make_folder(output)
        overwrite = bool(config.value("denoise.overwrite"))
        if os.path.samefile(output, image) and not overwrite:
            raise ValueError(
                "`output` must be another folder than `image` unless "
                f"`--overwrite` is given, got {output!r}"
            )
    sources = []
    for name in names:
        try:
            source = _source(os.path.join(image, name), name, None, pages)
            if output is not None:
                place = os.path.join(output, _suitable_name(source))
                source = dataclasses.replace(source, output=place)
            if source.is_stack:
                print(source.describe(), flush=True)
                _check_output(source)
            sources.append(source)
        except _FAILURES as error:
            failed.add(name, error)
    return sources


def _suitable_name(source: _Source) -> str:
    """Returns the name of a file in a folder, of an ending that can hold it."""
    suffix = pathlib.Path(source.name).suffix.lower()
    if suffix in _ALWAYS_SUITABLE:
        return source.name
    reason: str | None = "a restored picture"
    if suffix in OUTPUT_SUFFIXES:
        reason = stack_encoding.why_unwritable(suffix, source.stack)
        if reason is None:
            return source.name
    found = next(
        one
        for one in (".png", ".tif")
        if stack_encoding.why_unwritable(one, source.stack) is None
    )
    print(
        f"{source.name} becomes {source.name}{found}, as {suffix} can not hold "
        f"{reason}",
        flush=True,
    )
    return source.name + found


def _make_folder(output: str) -> None:
    """Creates the folder of outputs, if that of it exists."""
    path = pathlib.Path(output)
    if path.is_dir():
        return
    if path.exists() or not path.resolve().parent.is_dir():
        raise ValueError(
            "`output` must be a folder, or a new one in an existing folder, "
            f"where `image` is one, got {output!r}"
        )
    path.mkdir()


def _source(
    path: str,
    folder: str,
    output: str | None,
    pages: Sequence[int] | None,
) -> _Source:
    stack = _open(path)
    wrong = [page for page in pages or () if page >= len(stack)]
    if wrong:
        raise ValueError(
            f"`--pages` must be from 0 to {len(stack) - 1} for {path}, got "
            f"{wrong[0]}"
        )
    chosen = range(len(stack)) if pages is None else pages
    name = os.path.basename(path)
    return _Source(name, path, folder, stack, tuple(chosen), output)


def _check_output(source: _Source) -> None:
    """Raises an error if no file could hold the pages that are restored."""
    if source.output is None:
        return
    check_place(source.output, bool(config.value("denoise.overwrite")))
    suffix = pathlib.Path(source.output).suffix.lower()
    reason = stack_encoding.why_unwritable(suffix, source.stack)
    if reason is not None:
        suitable = [
            one
            for one in (".tif", ".npy", ".png")
            if stack_encoding.why_unwritable(one, source.stack) is None
        ]
        raise ValueError(
            f"`output` must end in {' or '.join(suitable)}, as {suffix} can "
            f"not hold {reason}, got {source.output!r}."
        )


def _items(source: _Source) -> list[_Item]:
    """Returns the pictures of a file, with what is particular to each."""
    ranges = _value_ranges(source)
    seed = config.value("corrupted_image.seed") or 0
    if source.folder:
        # The same whatever other files there are.
        number = zlib.crc32(source.folder.encode()) % 2**16
        seed += number * _SEEDS_OF_A_FILE
    items = []
    for page in source.pages:
        arguments: dict[str, Any] = {"image": source.path}
        folder, name = source.folder, source.name
        if source.is_stack:
            arguments["page"] = page
            name = f"{name} page {page}"
            folder = os.path.join(folder, f"page_{page:04d}")
        for one in ("clean", "mask"):
            given = config.value(f"corrupted_image.{one}")
            if isinstance(given, str):
                arguments[one] = _counterpart(given, source.name)
        if ranges is not None:
            arguments["value_range"] = ranges[page]
        if _is_corrupted():  # Two streams of each.
            arguments["seed"] = seed + 2 * page
        output = None if source.is_stack else source.output
        items.append(_Item(name, folder, arguments, output))
    return items


def _is_corrupted() -> bool:
    names = "noise_std", "missing_fraction"
    return any(config.value(f"corrupted_image.{one}") for one in names)


def _counterpart(given: str, name: str) -> str:
    """Returns the file of a folder that belongs to a picture."""
    if not os.path.isdir(given):
        return given
    stem = pathlib.Path(name).stem
    found = [
        one
        for one in sorted(os.listdir(given))
        if one == name or pathlib.Path(one).stem == stem
    ]
    return os.path.join(given, name if name in found else (found or [name])[0])


def _value_ranges(source: _Source) -> list[tuple[float, float]] | None:
    """Returns the range of each page: that of all pages of its channel."""
    given = config.value("corrupted_image.value_range")
    if len(source.stack) == 1 or given is not None:
        return None  # It does not depend on other pages.
    if source.stack.read(0).values.dtype == np.uint8:
        return None
    stack, clean = source.stack, config.value("corrupted_image.clean")
    if isinstance(clean, str):
        reference = _open(_counterpart(clean, source.name))
        if len(reference) == len(stack):
            stack = reference
    ends: dict[int, tuple[float, float]] = {}
    for page, image in enumerate(stack):
        known = image.values[~np.isnan(image.values)]
        if known.size:
            channel = stack.channel_of(page)
            low, high = float(known.min()), float(known.max())
            before = ends.get(channel, (low, high))
            ends[channel] = min(low, before[0]), max(high, before[1])
    dtype = stack.read(0).values.dtype
    ranges = {
        channel: images.value_range_of(np.array(found, dtype))
        for channel, found in ends.items()
    }
    # Of a channel without any value: its pages can not be restored.
    unknown = images.ValueRange(0.0, images.WHITE)
    chosen = [
        ranges.get(stack.channel_of(page), unknown)
        for page in range(len(stack))
    ]
    return [(one.low, one.high) for one in chosen]


def _bindings(item: _Item) -> list[str]:
    """Returns the bindings of a picture that is restored alone."""
    found = config.bindings(config.text())
    image = "IMAGE" if found.get(_IMAGE) == "%IMAGE" else _IMAGE
    names = {"image": image}
    return [
        *(
            f"{names.get(name, f'corrupted_image.{name}')} = {value!r}"
            for name, value in item.arguments.items()
        ),
        f"denoise.output = {item.output!r}",
    ]


def _restore_alone(
    run_dir: str | os.PathLike[str],
    configuration: Configuration,
    items: Sequence[tuple[_Source, Sequence[_Item]]],
    failed: _Failures,
) -> dict[str, RunDirectory]:
    """Restores each picture by a run of its own, in a subfolder.

    Returns:
      The runs of those that are restored, by the subfolder.
    """
    run = RunDirectory(run_dir)
    todo = [item for _, ones in items for item in ones]
    bindings = {item.folder: _bindings(item) for item in todo}
    done: dict[str, RunDirectory] = {}
    results: dict[str, Any] = {}
    started, trained = time.monotonic(), 0
    with run.locked(Kind.PICTURES):
        run.write_json(
            PICTURES, {"pictures": results, "failed": failed.reasons}
        )
        for number, item in enumerate(todo):
            left = _time_left(started, trained, len(todo) - number)
            print(
                f"{item.name} ({number + 1} of {len(todo)}){left}", flush=True
            )
            own = RunDirectory(run.path / item.folder)
            try:
                configuration.load(own.path, bindings[item.folder])
                trained += not own.is_finished()
                keras.utils.clear_session()
                summary = denoise(own.path)
            except _FAILURES as error:
                failed.add(item.name, error)
            else:
                done[item.folder] = own
                results[item.name] = _scores(summary)
            run.write_json(
                PICTURES, {"pictures": results, "failed": failed.reasons}
            )
    summaries.print_scores(results)
    return done


def _time_left(started: float, trained: int, num_left: int) -> str:
    if not trained:
        return ""
    elapsed = time.monotonic() - started
    clock = tqdm.tqdm.format_interval
    left = elapsed / trained * num_left
    return f", {clock(elapsed)} elapsed, about {clock(left)} left"


def _scores(summary: Mapping[str, Any]) -> dict[str, float]:
    names = "psnr", "ssim", "corrupted_psnr", "corrupted_ssim", "noise_std"
    return {name: summary[name] for name in names if name in summary}


def _restore_jointly(
    run_dir: str | os.PathLike[str],
    configuration: Configuration,
    items: Sequence[tuple[_Source, Sequence[_Item]]],
    failed: _Failures,
) -> dict[str, RunDirectory]:
    """Restores all pictures by one model; see `_restore_alone`."""
    todo = []
    for item in [item for _, ones in items for item in ones]:
        bindings = _bindings(item)
        try:
            configuration.load(run_dir, bindings)
            restoration = config.evaluated("experiment.data")
            if item.output is not None:
                is_lossy = bool(config.value("denoise.lossy"))
                overwrite = bool(config.value("denoise.overwrite"))
                check_place(item.output, overwrite)
                check_kind(item.output, restoration, is_lossy)
            todo.append(item)
        except _FAILURES as error:
            failed.add(item.name, error)
        configuration.load(run_dir)
    if len(todo) < 2:
        raise ValueError(
            "`--joint` needs two pictures or pages that can be restored, got "
            f"{len(todo)}"
        )
    name = pathlib.Path(config.value(_IMAGE)).stem
    configuration.load(
        run_dir,
        [
            "experiment.data = @corrupted_images()",
            "corrupted_images.each = @corrupted_image",
            f"corrupted_images.images = {[one.arguments for one in todo]!r}",
            f"corrupted_images.name = {name!r}",
            "denoise.output = None",
        ],
        ["IMAGE", *(f"corrupted_image.{one}" for one in _OF_A_PICTURE)],
    )
    run = RunDirectory(run_dir)
    owns = [RunDirectory(run.path / "pictures" / one.folder) for one in todo]
    with run.locked_for_training() as is_finished:
        if is_finished:
            run.refuse_others(identity.TRAINING)
            check_inputs(run, config.evaluated("experiment.data"))
            summaries.report_finished(run, "--epochs")
        else:
            train_jointly(run, [one.name for one in todo], owns)
    return {item.folder: own for item, own in zip(todo, owns, strict=True)}


def _write(
    source: _Source,
    restored: Mapping[int, RunDirectory],
    folder: pathlib.Path,
) -> None:
    """Writes the pages of a file, restored or not, as a file of its kind."""
    pages = [
        _restored_image(restored[page]) if page in restored else image
        for page, image in enumerate(source.stack)
    ]
    outputs = [] if source.output is None else [pathlib.Path(source.output)]
    if source.is_stack:
        is_shown = source.stack.form.kind is stacks.Kind.ANIMATION
        outputs.append(folder / f"restored{'.png' if is_shown else '.tif'}")
    for output in outputs:
        stack_encoding.write_stack(output, source.stack, pages)
        unchanged = len(pages) - len(restored)
        more = f", {unchanged} copied unchanged" if unchanged else ""
        print(f"wrote {output}: {len(restored)} restored{more}", flush=True)


def _restored_image(run: RunDirectory) -> formats.Image:
    """Reads the restored picture of a run, PNG or TIFF."""
    found = sorted(run.figures.glob("restored.*"))
    if not found:
        raise FileNotFoundError(
            f"the restored image of the finished run {run.path} does not exist"
        )
    return images.read_image(found[0])
