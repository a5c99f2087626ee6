"""Checks that a feature cache fits a frost line, a dataset and a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from frostline._core.errors import CacheError
from frostline._core.errors.cache import differences
from frostline._core.reporting.units import human
from frostline.features.columns import SOURCE
from frostline.features.manifest import Manifest
from frostline.features.shards import Key
from frostline.features.store import Store, found

# The number of samples that are read twice to find randomness; a random flip is missed once in 256 fills.
_PROBES = 8

# A header holds the keys of all rows of a shard, and readers refuse a header of more than 100 MB.
_LONGEST = 1000


def name_of(folder: Path) -> str:
    """Returns the expression that names a cache in an error."""
    return f"FeatureCache({str(folder)!r}, line)"


def check_made_alike(folder: Path, wanted: Manifest) -> Manifest | None:
    """Returns the manifest in a folder, or None.

    Args:
        folder: the folder of the cache.
        wanted: the manifest to compare with; the rest of its samples is not compared.

    Raises:
        CacheError: the folder is not a cache, or its cache has another line or other options.
    """
    there = found(folder)
    if there is None:
        return None
    if there.fingerprint != wanted.fingerprint:
        problem = "holds the features of another model, or of other weights below the line."
        prints = differences({"fingerprint": (there.fingerprint, wanted.fingerprint)})
        raise CacheError(name_of(folder), problem, prints, _another(folder))
    words = {"dtype": "precision", "preprocessing": "preprocessing", "views": "views", "boundary": "values"}
    if other := differences({word: (getattr(there, name), getattr(wanted, name)) for word, name in words.items()}):
        raise CacheError(name_of(folder), "holds features with other options.", other, _another(folder))
    return there


def planned(folder: Path, wanted: Manifest) -> Store:
    """Returns the store for a manifest, without writing anything.

    Raises:
        CacheError: the folder is not a cache, or its cache differs from the manifest.
    """
    there = check_made_alike(folder, wanted)
    if there is not None and (other := differences({"rest": (_rest(there), _rest(wanted))})):
        problem = "holds samples whose rest, the parts beside the input of the model, has another layout."
        raise CacheError(name_of(folder), problem, other, _another(folder))
    return Store(folder, wanted)


def complete(folder: Path, wanted: Manifest, keys: Sequence[Key]) -> Store:
    """Returns the store in a folder after checking that it holds all rows.

    Raises:
        CacheError: the folder holds another cache, or rows are missing.
    """
    there = check_made_alike(folder, wanted)
    store = Store(folder, there or wanted)
    missing = [(keys[index], view) for view in range(wanted.views) for index in store.missing(keys, view)]
    if not missing:
        return store
    names = [f"{damage.file.name}: {damage.problem}" for damage in store.damages]
    names += [f"sample {key!r}" + (f", view {view}" if wanted.views > 1 else "") for key, view in missing]
    problem = f"lacks {len(missing)} of {len(keys) * wanted.views} rows."
    fix = "Compute them: cache.fill(dataset). If other ranks are filling the cache, wait until they have finished."
    raise CacheError(f"{name_of(folder)}.dataset(dataset)", problem, tuple(names), fix)


def keys_of(dataset: Any, key: Callable[[int], Key] | None) -> list[Key]:
    """Returns the key of each sample of a dataset.

    Raises:
        CacheError: the dataset cannot be indexed or is empty, a key is neither an int nor a str, a key is too long, or
            two samples have the same key.
    """
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        problem = f"needs samples by index, but {type(dataset).__name__} has none."
        raise CacheError("A feature cache", problem, (), "Pass a dataset with __len__ and __getitem__.")
    samples = len(dataset)
    if not samples:
        raise CacheError("A feature cache", "needs samples, but the dataset has none.", (), "Pass another dataset.")
    keys: list[Key] = list(range(samples) if key is None else map(key, range(samples)))
    if other := [key for key in keys if type(key) not in (int, str)]:
        kinds = tuple(sorted({type(key).__name__ for key in other}))
        problem = f"gives {len(other)} of {samples} samples a key that is neither an int nor a str."
        raise CacheError(
            "FeatureCache(..., key=...)", problem, kinds, "Return a str: key=lambda index: str(name[index])."
        )
    if long := [key for key in keys if _length(key) > _LONGEST]:
        problem = f"gives {len(long)} of {samples} samples a key of more than {_LONGEST} characters."
        fix = "Return a digest: key=lambda index: hashlib.sha256(name[index].encode()).hexdigest()"
        raise CacheError("FeatureCache(..., key=...)", problem, (), fix)
    known: set[Key] = set()
    twice = [repr(key) for key in keys if key in known or known.add(key)]  # type: ignore[func-returns-value]
    if twice:
        problem = f"gives {len(twice)} of {samples} samples the key of another sample."
        raise CacheError("FeatureCache(..., key=...)", problem, tuple(twice), "Return another key for each index.")
    return keys


def _length(key: Key) -> int:
    # An estimate from the bits: Python refuses to print a very large number.
    return len(key) if isinstance(key, str) else key.bit_length() // 3


def probes(samples: int) -> list[int]:
    """Returns a few evenly spaced indices, from the first to the last.

    Example:
        >>> probes(100), probes(3)
        ([0, 14, 28, 42, 56, 70, 84, 99], [0, 1, 2])
    """
    return sorted({number * (samples - 1) // (_PROBES - 1) for number in range(_PROBES)})


def check_random(one: Mapping[int, bytes], two: Mapping[int, bytes], views: int) -> None:
    """Checks that a dataset is random if, and only if, several views of it will be stored.

    Args:
        one: digests of samples, by index.
        two: digests of the same samples, read again.
        views: the number of views to store.

    Raises:
        CacheError: the dataset is random but one view is stored, or it is not random but several are.
    """
    differ = [index for index in one if one[index] != two[index]]
    if differ and views == 1:
        problem = f"reads a random dataset: {len(differ)} of {len(one)} samples differ when they are read twice."
        fix = "Store several views of each: FeatureCache(..., views=4); or remove the augmentation."
        raise CacheError("cache.fill(dataset)", problem, tuple(f"sample {index}" for index in differ), fix)
    if not differ and views > 1:
        problem = f"would store {views} equal views: {len(one)} samples were read twice, and none differs."
        raise CacheError("cache.fill(dataset)", problem, (), "Store one view: FeatureCache(..., views=1).")


def check_sources(store: Store, keys: Sequence[Key], sources: Mapping[int, bytes]) -> None:
    """Checks that the stored features belong to these samples.

    Args:
        store: the stored rows.
        keys: the keys of all samples.
        sources: digests of some samples as they are now, by index.

    Raises:
        CacheError: some features belong to other samples.
        DamagedCacheError: a row is damaged.
    """
    stored = [index for index in sources if not store.missing([keys[index]], 0)]
    data = store.reader().rows(store.places([keys[index] for index in stored], 0), [SOURCE.name])[SOURCE.name]
    width = SOURCE.nbytes
    other = [index for n, index in enumerate(stored) if sources[index] != data[n * width : (n + 1) * width]]
    if other:
        problem = f"holds features of other samples: {len(other)} of {len(stored)} compared samples differ."
        names = tuple(f"sample {keys[index]!r}" for index in other)
        raise CacheError(name_of(store.folder), problem, names, _another(store.folder))


def _another(folder: Path) -> str:
    return f"Use another folder, FeatureCache({f'{folder}-2'!r}, line), or delete it: frostline cache clear {folder}"


def _rest(manifest: Manifest) -> object:
    return [str(column.of(1)) for column in manifest.rest], manifest.structure


def state_of(folder: Path, said: Manifest) -> str:
    """Returns one line of text about the cache in a folder."""
    there = check_made_alike(folder, said)
    if there is None:
        return f"FeatureCache({str(folder)!r}, empty, {said.precision})"
    store = Store(folder, there)
    rows = f"{store.rows // there.views} of {there.samples} samples"
    return f"FeatureCache({str(folder)!r}, {rows}, {said.precision}, {human(store.nbytes)})"
