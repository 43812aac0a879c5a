"""What all indexes share: contents that are replaced as a whole, ids that stay, removal, plans, files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, Generic, ParamSpec, TypeVar, cast

import numpy as np
import numpy.typing as npt

from . import arrays, parallel, slices
from .ids import NOTHING, Directory, Identified, living

if TYPE_CHECKING:
    from .cuda.device import Device
    from .plan import Plan
    from .storage import File
    from .tuning import Draw, Progress, Subject

Array = npt.NDArray[Any]

PLANS = 16  # that are kept

I = TypeVar("I", bound=Identified)
R = TypeVar("R")
P = ParamSpec("P")
Index = TypeVar("Index", bound="Collection[Any]")


def reading(work: Callable[Concatenate[Index, P], R]) -> Callable[Concatenate[Index, P], R]:
    """A method that reads what may lie in a mapped file: if that changes, a FileError and never a wrong answer."""

    @wraps(work)
    def guarded(self: Index, *args: P.args, **kwargs: P.kwargs) -> R:
        file = self._file
        if file is None:
            return work(self, *args, **kwargs)
        file.check_unchanged()
        try:
            return work(self, *args, **kwargs)
        finally:
            file.check_unchanged()

    return cast("Callable[Concatenate[Index, P], R]", guarded)


def changing(work: Callable[Concatenate[Index, P], R]) -> Callable[Concatenate[Index, P], R]:
    """The same for a method that changes the index: nothing is refused once the change shows."""

    @wraps(work)
    def guarded(self: Index, *args: P.args, **kwargs: P.kwargs) -> R:
        self._refuse_changed()
        try:
            return work(self, *args, **kwargs)
        except BaseException:
            self._refuse_changed()
            raise

    return cast("Callable[Concatenate[Index, P], R]", guarded)


def frozen(index: Index) -> Index:
    """The index as it is now, in the same memory; changes of it do not reach this one."""
    other = object.__new__(type(index))
    other.__dict__.update(index.__dict__)
    other._directory, other._writing, other._naming = Directory(), parallel.Lock(), parallel.Lock()
    return other


class Collection(ABC, Generic[I]):
    """Things with ids. Any number of threads may read while one writes: contents are replaced, never changed."""

    _on_gpu: ClassVar[str]  # the class of `nestvec.cuda` that copies are of

    def __init__(self, empty: I) -> None:
        self._contents = self._empty = empty
        self._directory = Directory()
        self._writing = parallel.Lock()  # held as long as a change takes, by one thread at a time
        self._naming = parallel.Lock()  # held while ids are looked up, and for the moment in which a change shows
        self._file: File | None = None  # in which contents, or some of them, lie
        self._plans: tuple[Plan, ...] = ()  # replaced as a whole

    @abstractmethod
    def add(self, x: Any, /, ids: Any = None, *, threads: int | None = None) -> None:
        """Append; after an error the index is as it was."""

    @abstractmethod
    def reconstruct(self, ids: Any) -> Any:
        """What is stored under some ids, as `add` takes it."""

    @abstractmethod
    def _subject(self, queries: Any, k: int, dims: int | None, draw: Draw, threads: int | None) -> Subject:
        """What tuning asks of the index; `queries` None: some of what is stored is held out."""

    @abstractmethod
    def _width(self, dims: int | None) -> int:
        """What a plan has as its `dims`, given those of a search."""

    @abstractmethod
    def _compacted(self, contents: I, workers: int) -> I:
        """The same contents in one piece without anything removed."""

    def _refuse_unlike(self, other: Any) -> None:
        """ValueError if what another index of this class stores cannot be added to this one."""

    @reading
    def to(self, device: str | Device = "cuda", *, stream: Any = None) -> Any:
        """A copy in a GPU's memory, which is searched there: the same results, bit for bit.

        What is added or removed later does not reach the copy.

        Parameters
        ----------
        device : str
            ``"cuda"`` is the current GPU, ``"cuda:1"`` the second.
        stream : optional
            A stream of torch, cupy or cuda.core, or its handle: the copy begins when what is in it is done.

        Returns
        -------
        CudaNestedIndex, CudaBinaryIndex or CudaMultiVectorIndex
            Of `nestvec.cuda`: it searches as the index does.

        Raises
        ------
        ImportError
            If nestvec was built without CUDA kernels.
        RuntimeError
            If no GPU can be used: no driver, or it is older than compute capability 8.0.
        ValueError
            For a device that is not there; if the index is empty.
        MemoryError
            If the GPU has too little free memory: how much is needed, and free. Nothing was copied then.
        """
        from . import cuda

        return getattr(cuda, self._on_gpu)(self, cuda.Device.after(device, stream))

    @property
    def ntotal(self) -> int:
        """How many there are, removed ones not counted."""
        return self._contents.ntotal

    def __len__(self) -> int:
        return self.ntotal

    @reading
    def __contains__(self, wanted: Any) -> bool:
        return bool(self._find(arrays.lookup([wanted]), "ignore")[1][0] >= 0)

    @property
    @reading
    def ids(self) -> Array:
        """Ids in order of adding, (ntotal,) int64, or objects where they are strings."""
        return living(self._contents)

    @changing
    def remove(self, ids: Any, *, missing: str = "raise") -> int:
        """Remove by id. Searches that begin later do not find what was removed; its room is kept until `compact`.

        Parameters
        ----------
        ids : id or array of ids
        missing : {"raise", "ignore"}
            What to do about an id that is not in the index. By default nothing is removed.

        Returns
        -------
        int
            How many were removed.

        Raises
        ------
        KeyError
            For an id that is not in the index.
        TypeError
            For ids that are neither integers nor strings.
        """
        arrays.one_of(missing, "missing", ("raise", "ignore"))
        wanted = arrays.lookup(ids)
        with self._writing():
            contents, slots = self._find(wanted, missing=missing)
            slots = slices.distinct(slots[slots >= 0])
            if len(slots):
                self._publish(contents.without(slots), gone=wanted, dead=slots)
            return len(slots)

    @property
    def plans(self) -> tuple[Plan, ...]:
        """Plans that `tune` found, saved with the index; the latest first."""
        return self._plans

    def tune(
        self,
        queries: Any = None,
        k: int = 10,
        recall: float = 0.99,
        confidence: float = 0.95,
        *,
        dims: int | None = None,
        sample: int = 500,
        seed: int = 0,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Plan:
        """Find the cheapest plan that reaches a recall, and keep it: ``search(q, k, recall=...)`` then uses it.

        Exact answers for a sample of queries show where each code ranks the true neighbours, so how many rows a
        shortlist must keep for the *lower confidence bound* of the recall to reach the target; times are measured on
        this machine, one query at a time. Where exact search is faster, or no plan is known to be good enough, the plan
        is exact search. The promise is for queries like those of the sample, and for each on average.

        Parameters
        ----------
        queries : optional
            As `search` takes them. Without, stored rows (of documents up to 32 tokens) are held out, each of which is
            searched for among the others; they may be easier than real queries, so give those if you have them.
        k : int
            Results per query that searches will ask for.
        recall : float
            Share of the k true neighbours to find, on average; above 0, at most 1.
        confidence : float
            How sure the recall is to be reached, above 0.5 and below 1.
        dims : int, optional
            Leading dims that searches will use, or bits of a `BinaryIndex`. Default: all.
        sample : int
            Queries to use, at most, drawn at random.
        seed : int
            Of the draw.
        threads : int, optional
            As searches will use; default as there.
        progress : callable, optional
            Called as ``progress(done, total, what)`` from step to step.

        Returns
        -------
        Plan
            Also the first of `plans`.

        Warns
        -----
        UserWarning
            If the sample is too small, or no plan reaches the recall: the plan is then exact search.

        Raises
        ------
        ValueError
            Empty index; no stored rows; values out of range; queries as `search` refuses them.

        References
        ----------
        Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.

        Examples
        --------
        >>> import numpy as np
        >>> import nestvec as nv
        >>> rng = np.random.default_rng(0)
        >>> x = rng.standard_normal((5_000, 16)) @ rng.standard_normal((16, 64))
        >>> index = nv.NestedIndex(64, metric="l2")
        >>> index.add(x)
        >>> plan = index.tune(k=5, recall=0.8, sample=100)
        >>> D, I = index.search(x[:3], 5, recall=0.8)
        >>> I[:, 0].tolist()
        [0, 1, 2]
        """
        from .tuning import Draw, Tuning  # costs what nobody needs who does not tune

        k = arrays.result_count(k)
        share = arrays.share(recall, "recall", 0.0, 1.0)
        certain = arrays.share(confidence, "confidence", 0.5, 0.999999)
        draw = Draw(arrays.integer(sample, "sample", 1), arrays.integer(seed, "seed", 0))
        if self.ntotal == 0:
            raise ValueError("the index is empty; add to it before tuning")
        if queries is None and self.ntotal == 1:
            raise ValueError("a single row cannot be held out as a query; pass queries")
        plan = Tuning(self._subject(queries, k, dims, draw, threads), share, certain, progress).plan()
        plan = replace(plan, k=k)
        with self._naming():
            kept = [one for one in self._plans if (one.k, one.dims, one.recall) != (plan.k, plan.dims, plan.recall)]
            self._plans = (plan, *kept[: PLANS - 1])
        return plan

    def _stages(self, plan: Any, recall: float | None, k: int, dims: int | None, threads: int | None) -> Any:
        """The plan to search by: the one given, or the cheapest one known, or now found, to reach a recall."""
        if recall is None:
            return plan
        if plan is not None:
            raise ValueError("a search takes plan or recall, not both; leave one out")
        wanted, size = arrays.share(recall, "recall", 0.0, 1.0), self._width(dims)
        if wanted == 1:
            return None
        fit = [one for one in self._plans if (one.k, one.dims) == (k, size) and one.recall >= wanted]
        return min(fit, key=lambda one: one.recall) if fit else self.tune(None, k, wanted, dims=dims, threads=threads)

    def clear(self) -> None:
        """Remove everything, plans too; ids, unless given, begin at 0 again."""
        with self._writing():
            self._swap(self._empty)
            self._file = None
            self._plans = ()

    def compact(self, *, threads: int | None = None) -> None:
        """Copy what was not removed, and free the room of the rest; ids and answers stay.

        The index holds both copies for as long as that takes, and can be searched; changes wait.

        Parameters
        ----------
        threads : int, optional
            Default: all cores this process may use.
        """
        workers = parallel.threads_for(threads, 2**62)
        with self._writing():
            contents = self._contents
            self._refuse_changed()
            if not contents.tombstones and contents.pieces <= 1 and self._file is None:
                return
            compacted = self._compacted(contents, workers)
            self._refuse_changed()
            self._swap(compacted)
            self._file = None

    def merge(self: Index, other: Index, *, add_id: int = 0, threads: int | None = None) -> None:
        """Add all that another index of the same kind holds, as it is stored there; the other one stays as it is.

        Documents of a `MultiVectorIndex` are encoded by the encoder of the index they are added to.

        Parameters
        ----------
        other : index of the same class
            With vectors, codes or tokens of as many dims or bits.
        add_id : int
            Added to the ids of the other index, if they are integers.
        threads : int, optional
            Default: all cores this process may use.

        Raises
        ------
        ValueError
            Other dims or bits, another transform; ids that are taken; no stored rows.
        TypeError
            An index of another class.
        """
        if not isinstance(other, Collection) or not (isinstance(other, type(self)) or isinstance(self, type(other))):
            raise TypeError(f"other must be a {type(self).__name__}, got {type(other).__name__}")
        self._refuse_unlike(other)
        shift = arrays.integer(add_id, "add_id", 0)
        ids = other.ids
        if len(ids):
            self._add_stored(other.reconstruct(ids), ids if ids.dtype == object else ids + shift, threads)

    def _add_stored(self, x: Any, ids: Array, threads: int | None) -> None:
        """Add what another index gave back of what it stores."""
        self.add(x, ids, threads=threads)

    def save(self, path: Any) -> None:
        """Write the index to a file, which `nestvec.load` reads; the same index gives the same bytes.

        Other threads may change the index meanwhile; what is saved is what it held when the call began. A file that is
        there is replaced at the end, and stays as it was after an error. Removed rows stay in the file until `compact`.

        Parameters
        ----------
        path : str or path-like

        Raises
        ------
        OSError
            With `path` as its ``filename``.
        FileError
            If the index is mapped from a file that was shortened or written to.
        ValueError
            What no file can hold: more than 65,536 segments, ids with characters that are none.
        """
        from .files import save  # which knows every kind of index, and so imports this module

        save(self, path)

    def __reduce__(self) -> Any:
        """Copies and pickles are what a file holds, checked when they are read."""
        from .files import load, to_bytes

        return load, (to_bytes(self),)

    def _refuse_changed(self) -> None:
        """FileError if the file in which contents lie has changed."""
        if self._file is not None:
            self._file.check_unchanged()

    def _find(self, wanted: Array, missing: str = "raise") -> tuple[I, Array]:
        """Contents, and the slots in it of some ids; a KeyError, or else -1, for those that it lacks."""
        with self._naming():
            contents = self._contents
            slots = self._directory.find(contents, wanted)
        _refuse_missing(wanted, slots, missing)
        return contents, slots

    def _slots(self, contents: I, wanted: Array) -> Array:
        """The slots of some ids in contents that may have been replaced meanwhile; -1 for those that it lacks."""
        with self._naming():
            if contents is self._contents:
                return self._directory.find(contents, wanted)
        return Directory().find(contents, wanted)

    def _refuse_known(self, given: Array) -> None:
        """ValueError for an id that is taken."""
        if len(known := np.flatnonzero(self._find(given, "ignore")[1] >= 0)):
            raise ValueError(f"id {given.tolist()[known[0]]!r} is in the index already; ids must be unique")

    def _publish(
        self, contents: I, new: Array = NOTHING, slots: Array = NOTHING, gone: Array = NOTHING, dead: Array = NOTHING
    ) -> None:
        """Show new contents: `new` ids, if listed, are at `slots`; those of `gone` were at `dead` and are nowhere."""
        self._refuse_changed()
        with self._naming():
            known = self._directory.changed(contents, new, slots, gone, dead)
            self._contents = contents  # what is interrupted before this has not happened
            self._directory.know(known)

    def _swap(self, contents: I) -> None:
        """Show contents with other slots."""
        with self._naming():
            self._directory.know(None)
            self._contents = contents


def _refuse_missing(wanted: Array, slots: Array, missing: str) -> None:
    if missing == "raise" and len(unknown := np.flatnonzero(slots < 0)):
        raise KeyError(f"id {wanted.tolist()[unknown[0]]!r} is not in the index")
