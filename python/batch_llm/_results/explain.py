"""What limited a run, in words, and what to change. Used by ``ProcessingStats.explain()`` and the log."""

from __future__ import annotations

from .bounds import Bounds, meaning_of
from .verdict import Facts, verdict

SMALLEST_SHARE = 0.05
"""Smallest share of the run for which a reason is listed."""


def explain(stats: Facts) -> str:
    """Return the verdict, then one line per reason, the longest first: its share, what it means, what to change."""
    whole = sum(stats.bound_by.values())
    found = verdict(stats)
    lines = [str(found)]
    if whole <= 0 or found.limit == "nothing":
        return lines[0]
    for name, seconds in sorted(stats.bound_by.items(), key=lambda entry: -entry[1]):
        share = seconds / whole
        if share >= SMALLEST_SHARE:
            meaning, remedy = meaning_of(stats, name)
            known = name == found.limit and remedy == found.remedy
            lines.append(f"{share:4.0%} of {whole:.1f} s: {meaning}.{'' if known else f' To change it: {remedy}.'}")
    if stats.sent_live:
        whys = ", ".join(f"{count:,} {_SENT_LIVE.get(why, why)}" for why, count in stats.sent_live.items())
        lines.append(f"Sent one by one instead of in batches: {whys}.")
    misses = cache_misses(stats)
    if misses and stats.prompt_cache.keys() - {"hit", "first", "short"}:
        lines.append(f"The provider's prompt cache: {misses}.")
    return "\n".join(lines)


_SENT_LIVE = {
    "price": "because a batch costs as much",
    "cache": "because the provider's prompt cache made them cheaper than a batch",
    "deadline": "because a batch would probably end after the deadline",
    "fallback": "because, if the batches failed, there would be no time to send more requests one by one",
    "late": "because their batches had to be cancelled before the deadline",
    "unfit": "because they cannot be in a batch",
}
_MISSES = {
    "first": "{count:,} {were} the first with {their} prefix",
    "expired": "{count:,} came after the entry had expired",
    "unwritten": "{count:,} {were} sent while the entry was being written",
    "changed": "{count:,} no longer began with it, because a hook had changed the prompt",
    "absent": "{count:,} found no entry where there should be one, because the provider had dropped it",
    "short": "{count:,} share no prefix that is long enough",
}
_FEWEST = 3
"""So many requests must share a prefix before it is cached."""


def cache_misses(stats: Bounds) -> str:
    """Return in words how many requests read the provider's prompt cache, and why others did not; empty if unknown."""
    found = {name: count for name, count in stats.prompt_cache.items() if name != "too_short"}
    too_short = stats.prompt_cache.get("too_short", 0)
    # Where nobody expects a cache, there is nothing to say.
    if not found.keys() - {"short"} and too_short < _FEWEST:
        return ""
    if too_short:
        found["short"] = found.get("short", 0) + too_short
    misses = [
        text.format(
            count=found[name], were="was" if found[name] == 1 else "were", their="its" if found[name] == 1 else "their"
        )
        for name, text in _MISSES.items()
        if found.get(name)
    ]
    hits = f"{found.get('hit', 0):,} of {sum(found.values()):,} requests read it"
    return f"{hits}; {', '.join(misses)}" if misses else hits
