"""How many threads a step runs on, found out by trying. Pure: times come in, a number goes out.

llama.cpp's threads wait for one another hundreds of times per token. With a core for each that is fast; with one thread too many for the cores that are free, every
wait lasts until the scheduler comes round, and a step takes ten times as long or more. Nothing says beforehand which it is, and it changes while a model runs. So now and
then a few steps run on another number, and the faster one stays. All numbers have their turn: between too many and few enough lies a plateau.

A trial costs most where it is least use: on idle cores. There the threads have the processor all the time, for they spin where they wait, and that can be seen: what a step took of the
processor, against what it could have taken. While it is nearly all, no fewer threads are tried, but once in a long while.
"""

from __future__ import annotations

from statistics import median
from typing import Final

TRIAL_STEPS: Final = 3
WORTH: Final = 0.92
"""Another number is taken where it needs less than this share of the time."""
HOPELESS: Final = 1.5
"""A trial whose first step takes longer than this many usual ones ends there."""
READ_WITH_ALL: Final = 16
"""From that many tokens of prompts in a step on it counts as one that reads."""
TRIED_TOKENS: Final = 128
"""A step that reads more takes too long to be tried on fewer threads."""
HINDERED: Final = 0.75
"""A step whose threads were on the processor for less of its time was kept from it; some in a row are no accident. Measured with two threads: 0.91 on idle cores, 0.51 with one busy process beside them, 0.50 with two."""
JUDGED_S: Final = 0.05
"""So long the steps are together by which that is judged: the kernel brings the time of other threads up to date at its ticks, every 1 to 10 ms."""
UNHINDERED_PAUSE_S: Final = 60.0
"""So long a number's own steps must have taken until fewer threads are tried all the same."""
FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 8.0
_SUDDEN: Final = 2.0


class ThreadChoice:
    """Chooses between *most* threads and one. Ask `count` before a step of generation, tell `record` how long it took; other steps are none of its business."""

    def __init__(self, most: int) -> None:
        self._levels = sorted({most, -(-most * 3 // 4), -(-most // 2), -(-most // 4), 1}, reverse=True)
        self._at = 0
        self._usual: list[float] = []
        self._judged_s = self._had_s = 0.0
        self._hindered = False
        self._unhindered_s = 0.0
        self._trial: int | None = None
        self._tried: list[float] = []
        self._turn = 0
        self._failed = 0
        self._pause_s = FIRST_PAUSE_S
        self._next_at: float | None = None
        self._kind = 0

    @property
    def settled(self) -> int:
        """The number that was best when last tried."""
        return self._levels[self._at]

    @property
    def unhindered(self) -> bool:
        """Whether all threads were best when last tried."""
        return self._at == 0

    def count(self) -> int:
        return self._levels[self._at if self._trial is None else self._trial]

    def record(self, seconds: float, now: float, *, share: float, kind: int = 1, tokens: int = 1) -> None:
        """Take the time of the step that ran on `count` threads, for each of its *tokens*, and what *share* of it they had on the processor, together at most 1.

        *kind* is what steps must share to be compared, such as their number of tokens.
        """
        if kind != self._kind:
            self._kind, self._usual, self._trial, self._tried = kind, [], None, []
        if self._trial is not None:
            self._tried.append(seconds)
            self._judge(now)
            return
        if self._next_at is None:
            self._next_at = now + self._pause_s
        slow = len(self._usual) >= TRIAL_STEPS and seconds > _SUDDEN * min(self._usual)
        sudden = slow and seconds > _SUDDEN * median(self._usual)  # a median costs as much as the rest of this
        self._usual = [*self._usual[-4:], seconds]
        if self._may_stay(seconds * tokens, share):
            return
        if sudden:
            self._pause_s = FIRST_PAUSE_S
            self._next_at = min(self._next_at, now + self._pause_s)
        if now >= self._next_at and len(self._usual) >= TRIAL_STEPS:
            self._begin_trial()

    def _may_stay(self, took_s: float, share: float) -> bool:
        """Whether all threads run and have the processor, so that fewer need not be tried yet."""
        self._judged_s += took_s
        self._had_s += share * took_s
        if self._judged_s >= JUDGED_S:
            self._hindered = self._had_s < HINDERED * self._judged_s
            self._judged_s = self._had_s = 0.0
        if self._at > 0 or self._hindered:
            self._unhindered_s = 0.0
            return False
        self._unhindered_s += took_s
        if self._unhindered_s < UNHINDERED_PAUSE_S:
            return True
        self._unhindered_s = 0.0
        return False

    def _begin_trial(self) -> None:
        others = [level for level in range(len(self._levels)) if level != self._at]
        if others:
            self._trial = others[self._turn % len(others)]
            self._turn += 1
            self._tried = []

    def _judge(self, now: float) -> None:
        assert self._trial is not None
        usual = median(self._usual)
        if len(self._tried) < TRIAL_STEPS and self._tried[0] < HOPELESS * usual:
            return
        if median(self._tried) < WORTH * usual:
            self._at, self._usual = self._trial, self._tried
            self._pause_s, self._failed = FIRST_PAUSE_S, 0
        else:
            self._failed += 1
            if self._failed % (len(self._levels) - 1) == 0:  # each has had its turn in vain
                self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s)
        self._trial = None
        self._next_at = now + self._pause_s


class Threads:
    """The numbers for steps that generate, and for those that read prompts.

    Reading has more to do between two waits, so it may gain by threads that only hinder generation: by a small model, or on cores that are not quite free. It has all of
    them while generation does, and where that does not a choice of its own. Likewise several answers at once gain by threads that one alone does without: each number has its choice.
    """

    def __init__(self, generating: int, reading: int) -> None:
        self._most = generating
        self._choices: dict[int, ThreadChoice] = {}
        self._generating = self._choice(1)
        self._reading = ThreadChoice(reading)
        self._most_reading = reading

    def _choice(self, generated: int) -> ThreadChoice:
        if generated not in self._choices:
            self._choices[generated] = ThreadChoice(self._most)
        return self._choices[generated]

    def counts(self, read: int, generated: int = 1) -> tuple[int, int]:
        """Return the numbers of `llama_set_n_threads` for a step that reads *read* tokens of prompts and generates for *generated* answers."""
        if not read:
            self._generating = self._choice(generated)
        count = self._generating.count()
        if read < READ_WITH_ALL:
            return count, count
        if self._generating.unhindered:
            return count, self._most_reading
        return count, self._reading.count() if read <= TRIED_TOKENS else self._reading.settled

    def record(self, seconds: float, now: float, *, processor_s: float, generated: int, read: int) -> None:
        """Take the time of the step that ran on what `counts` said last, and what it took of the processor on all threads together."""
        if not read:
            choice = self._choice(generated)
            choice.record(seconds, now, share=processor_s / (seconds * choice.count()))
        elif READ_WITH_ALL <= read <= TRIED_TOKENS and not self._generating.unhindered:
            share = processor_s / (seconds * self._reading.count())
            self._reading.record(seconds / read, now, share=share, kind=read.bit_length(), tokens=read)
