#!/bin/sh
# clang as cilium-agent finds it first. The agent kills its compiler once the CNI plugin has given up a pod (after 90 s), and begins
# anew for the next try: on a slow node no pod would ever start. Here the compiler goes on without the caller, and
# what it made is kept for whoever asks for the same.
set -u
real=${CLANG:-/usr/bin/clang} generated=${GENERATED:-/var/run/cilium}
case " $* " in
*" -c "*" -o - ") ;;
*) exec "$real" "$@" ;;
esac
kept=$generated/compiled
mkdir -p "$kept"
# The arguments, with the headers that the agent writes in the place of their folders: it writes the same ones into another folder
# when it learns more about the node, and compiles all again. Other headers never change in this container.
key=$(
    for word; do
        case $word in
        -I"$generated"/*) cat "${word#-I}"/*.h 2>/dev/null ;;
        *) printf '%s\n' "$word" ;;
        esac
    done | sha256sum
)
made=$kept/${key%% *}
# One compiler for each key; a second caller waits for the first one's result. It has no output of ours, which the agent would wait for.
setsid flock "$made.lock" sh -c '
    made=$1; shift
    test -e "$made.o" || { "$@" >"$made.part" 2>"$made.err" && mv "$made.part" "$made.o"; }
' sh "$made" "$real" "$@" </dev/null >/dev/null 2>&1 &
wait $!
cat "$made.err" >&2
cat "$made.o" 2>/dev/null
