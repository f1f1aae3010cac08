"""Where a packet, or its reply, was seen last, and why it went no farther; pure."""

from __future__ import annotations

from dataclasses import replace

from hoplab.trace.live.drops import NOT_SPECIFIED
from hoplab.trace.live.leg import Leg
from hoplab.trace.live.observed import NEAR_NS, WIRE, Observed
from hoplab.trace.live.sightings import Sighting
from hoplab.trace.model import INFERRED, OUTSIDE, SEEN, End, Place, Way


def end_of(
    predicted: Way, there: Leg, back: Leg, target: Place | None, refused: Sighting | None, observed: Observed
) -> End:
    """Return where the packet, or its reply, was seen last, and why it went no farther, as far as that is known."""
    reply = target is not None
    leg = back if reply else there
    hop = _next_place(leg, predicted, reply=reply)
    seen = leg.last_seen
    last = _place(seen) if seen else (target if reply and target else predicted.source)
    if seen and seen.place == WIRE:
        last = OUTSIDE
    missing = hop
    if drop := next((rule for rule in observed.rules if rule.drops and rule.leg == leg.name), None):
        why = f"`{drop.text}` in {drop.where} of {drop.place} {_drops(drop.text)} it"
        return End(drop.place, missing, "rule", drop.text, why, drop.place, reply, SEEN)
    last_rule = next((rule for rule in reversed(observed.rules) if rule.leg == leg.name), None)
    if last_rule and last_rule.queues:  # what a program lets pass meets the chains after that one
        why = f"the program that `{last_rule.text}` in {last_rule.where} of {last_rule.place} asks did not let it pass"
        return End(last_rule.place, missing, "rule", last_rule.text, why, last_rule.place, reply, SEEN)
    own = predicted.end
    if own and own.reply == reply and (seen is None or _consistent(leg, own)):
        reason = _reason(observed, seen, own.at)
        why = f"{own.why} (the kernel there: {reason})" if reason else own.why
        return replace(
            own,
            last=last,
            missing=missing if own.missing == "" else own.missing,
            why=why,
            evidence=SEEN if reason else INFERRED,
        )
    if refused and not reply:
        who = _first_of(back) or refused.place
        why = f"{who} answers with {refused.what}"
        return End(last, missing, "refused", refused.what, why, who, reply, SEEN)
    if reply and not back.seen:
        assert target
        why = f"{target} got it, and no reply of it was seen"
        return End(target, str(predicted.source), "silent", "no reply", why, target, True, SEEN)
    at = observed.pods.get(last, last) if seen and seen.direction == "out" and last.kind == "pod" else last
    reason = _reason(observed, seen, at)
    if reason:
        return End(last, missing, "dropped", reason, f"the kernel of {at} dropped it: {reason}", at, reply, SEEN)
    if counted := observed.counted.get(observed.pods.get(at, at)):
        text = ", ".join(counted)
        why = f"it was seen at {_where(seen)}, and not at {missing}; {at} counted meanwhile: {text}"
        return End(last, missing, "counted", text, why, at, reply, SEEN)
    if seen:
        why = f"it was seen at {_where(seen)}, and not at {missing}; no report says why"
    else:
        why = f"it was seen nowhere; its sender got: {observed.outcome}"
    return End(last, missing, "lost", "no reason was reported", why, at, reply, SEEN)


def _where(seen: Sighting | None) -> str:
    if seen is None:
        return "nothing"
    if seen.place == WIRE:
        return f"{seen.dev} of the lab network"
    return f"{seen.dev} of {seen.place}" if seen.place != OUTSIDE else "the outside"


def _drops(text: str) -> str:
    return "rejects" if "REJECT" in text or "reject" in text else "drops"


def _place(seen: Sighting) -> Place:
    return seen.place


def _first_of(leg: Leg) -> Place | None:
    """Return where an answer was seen first: who sent it."""
    first = min(leg.seen, key=lambda seen: (seen.time, seen.order), default=None)
    return first.place if first and first.place != WIRE else None


def _next_place(leg: Leg, predicted: Way, *, reply: bool) -> str:
    """Return the first place where it was expected and not seen."""
    hops = leg.predicted[leg.last + 1 :]
    current = leg.predicted[leg.last].place if leg.last >= 0 else None
    following = next((hop.place for hop in hops if hop.place != current), None)
    if following:
        return str(following)
    if predicted.end and predicted.end.missing:
        return predicted.end.missing
    goal = predicted.source if reply else predicted.target
    return str(goal or "its receiver")


def _consistent(leg: Leg, end: End) -> bool:
    """Return whether it was seen no farther than the model says."""
    return not leg.others and all(found is not None for found in leg.matched[:1]) and leg.last >= 0


def _reason(observed: Observed, seen: Sighting | None, at: Place) -> str:
    """Return why a node dropped a packet soon after the traced one was last seen; "" where nothing says so."""
    node = observed.pods.get(at, at)
    if seen is None:
        return ""
    near = [drop for drop in observed.drops.get(node, ()) if -NEAR_NS / 10 <= drop.time - seen.time <= NEAR_NS]
    near.sort(key=lambda drop: (drop.reason == NOT_SPECIFIED, abs(drop.time - seen.time)))
    return f"{near[0].reason} in {near[0].function}" if near else ""
