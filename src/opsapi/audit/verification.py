"""Finds what is wrong with a chain. Pure; reads the entries once, in the order of `seq`."""

import hmac
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from opsapi.audit.chain import ChainedEntry, ChainHead, ChainKeys, Checkpoint, entry_mac, is_genuine

FINDINGS = 100
"""How many are told one by one; all are counted."""
_JUDGED = 24
"""How many suspects are compared with each other, at a cost of some 50 MACs a pair; a chain rewritten wholesale is
told as altered all the same."""


class Flaw(StrEnum):
    ALTERED = "altered"
    """The entry is not what was linked."""
    MISSING = "missing"
    """Entries between two others are gone."""
    REORDERED = "reordered"
    """The entry is genuine, but was linked at another place."""
    CUT_OFF = "cut_off"
    """The chain's end is gone: the head or a checkpoint knows of more."""
    REWRITTEN = "rewritten"
    """A checkpoint, or the head, knows another entry at that place."""
    UNKNOWN_KEY = "unknown_key"
    """Linked with a key that was not given."""
    FORGED_CHECKPOINT = "forged_checkpoint"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """`seq` is the place; `last_seq` the end of a range that is missing."""

    flaw: Flaw
    seq: int
    last_seq: int | None = None
    entry_id: str | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`checked` entries, the last at `last_seq`; `flaws` counts all, `findings` has the first hundred.

    `guarded_to`: the last place that a genuine checkpoint vouches for; what is behind it could be cut off unseen by
    who can write to the database.
    """

    checked: int
    last_seq: int
    flaws: int
    findings: list[Finding]
    guarded_to: int

    @property
    def sound(self) -> bool:
        return self.flaws == 0


class _Suspect(msgspec.Struct, frozen=True):
    entry: ChainedEntry
    before: bytes


class ChainVerifier:
    """Feed it every chained entry by ascending `seq`, then `finish`. Memory does not grow with the chain."""

    def __init__(self, keys: ChainKeys, checkpoints: Iterable[Checkpoint] = ()) -> None:
        self._keys = keys
        self._checked = 0
        self._last = ChainHead()
        self._gap = False
        self._flaws = 0
        self._findings: list[Finding] = []
        self._suspects: list[_Suspect] = []
        self._marks: dict[int, list[Checkpoint]] = {}
        self._guarded_to = 0
        for mark in checkpoints:
            if is_genuine(keys, mark):
                self._marks.setdefault(mark.seq, []).append(mark)
            else:
                self._report(Finding(flaw=Flaw.FORGED_CHECKPOINT, seq=mark.seq))

    def feed(self, chained: ChainedEntry) -> None:
        """Raises ValueError when fed out of order: that is the reader's mistake, not the chain's."""
        expected = self._last.seq + 1
        if chained.seq < expected:
            raise ValueError(f"entry {chained.seq} fed after {self._last.seq}")
        gap = chained.seq > expected
        if gap:
            self._report(Finding(flaw=Flaw.MISSING, seq=expected, last_seq=chained.seq - 1))
        self._check(chained, gap=gap)
        self._compare(chained)
        self._checked += 1
        self._last = ChainHead(chained.seq, chained.mac)

    def _check(self, chained: ChainedEntry, *, gap: bool) -> None:
        mac = entry_mac(self._keys, chained.key_id, chained.seq, self._last.mac, chained.entry)
        if mac is None:
            self._report(Finding(flaw=Flaw.UNKNOWN_KEY, seq=chained.seq, entry_id=chained.entry.id))
        elif not gap and not hmac.compare_digest(mac, chained.mac):
            # Behind a gap the MAC before is not known, so nothing can be said of this entry but what it follows.
            self._suspect(chained)

    def _suspect(self, chained: ChainedEntry) -> None:
        if len(self._suspects) < _JUDGED:
            self._suspects.append(_Suspect(chained, self._last.mac))
        else:
            self._report(Finding(flaw=Flaw.ALTERED, seq=chained.seq, entry_id=chained.entry.id))

    def _compare(self, chained: ChainedEntry) -> None:
        for mark in self._marks.pop(chained.seq, []):
            if hmac.compare_digest(mark.mac, chained.mac):
                self._guarded_to = max(self._guarded_to, mark.seq)
            else:
                self._report(Finding(flaw=Flaw.REWRITTEN, seq=chained.seq, entry_id=chained.entry.id))

    def finish(self, head: ChainHead) -> Verdict:
        """`head` as stored beside the chain."""
        self._judge_suspects()
        longest = max([head.seq, *self._marks])
        if longest > self._last.seq:
            self._report(Finding(flaw=Flaw.CUT_OFF, seq=self._last.seq + 1, last_seq=longest))
        elif head.seq < self._last.seq or not hmac.compare_digest(head.mac, self._last.mac):
            self._report(Finding(flaw=Flaw.REWRITTEN, seq=head.seq))
        return Verdict(
            checked=self._checked,
            last_seq=self._last.seq,
            flaws=self._flaws,
            findings=sorted(self._findings, key=lambda finding: finding.seq)[:FINDINGS],
            guarded_to=self._guarded_to,
        )

    def _judge_suspects(self) -> None:
        """Tells moved entries from altered ones, and from those that merely follow a moved one."""
        known = {mac for suspect in self._suspects for mac in (suspect.before, suspect.entry.mac)}
        places = {suspect.entry.seq: suspect.entry.mac for suspect in self._suspects}
        before = self._flaws
        for suspect in self._suspects:
            chained = suspect.entry
            origin = self._origin(chained, known, places)
            if origin != chained.seq:
                flaw = Flaw.ALTERED if origin is None else Flaw.REORDERED
                self._report(Finding(flaw=flaw, seq=chained.seq, entry_id=chained.entry.id))
        if self._suspects and self._flaws == before:
            first = self._suspects[0].entry
            self._report(Finding(flaw=Flaw.REORDERED, seq=first.seq, entry_id=first.entry.id))

    def _origin(self, chained: ChainedEntry, known: set[bytes], places: dict[int, bytes]) -> int | None:
        """The place where this content was linked: whose MAC it makes, its own (carried along) or that place's."""
        for seq, mac_there in places.items():
            for before in known:
                mac = entry_mac(self._keys, chained.key_id, seq, before, chained.entry)
                if mac is not None and mac in (chained.mac, mac_there):
                    return seq
        return None

    def _report(self, finding: Finding) -> None:
        self._flaws += 1
        if len(self._findings) < FINDINGS:
            self._findings.append(finding)
