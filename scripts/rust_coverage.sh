#!/usr/bin/env bash
# Runs the Rust tests and prints how much of the code they cover. Without LLVM's tools it runs the tests alone.
set -euo pipefail
cd "$(dirname "$0")/.."

find_tools() { ls -d "$(rustc --print sysroot)"/lib/rustlib/*/bin/llvm-cov 2>/dev/null | head -1 || true; }
if [ -z "$(find_tools)" ]; then rustup component add llvm-tools >/dev/null 2>&1 || true; fi
tools=$(find_tools)
if [ -z "$tools" ]; then
    echo "no coverage of Rust: llvm-cov is missing (rustup component add llvm-tools)"
    exec cargo test --no-default-features
fi

folder=.cache/rust-coverage
rm -rf "$folder"
mkdir -p "$folder"
# Instruments this crate alone, so that the dependencies are those of the plain build.
cargo rustc --no-default-features --lib --profile test --message-format json-render-diagnostics \
    -- -C instrument-coverage > "$folder/built.json"
binary=$(sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' "$folder/built.json")
export LLVM_PROFILE_FILE="$PWD/$folder/%p.profraw"
# What fails beside others has to pass by itself.
"$binary" || "$binary" --test-threads=1
"${tools%cov}profdata" merge --sparse "$folder"/*.profraw --output "$folder/all.profdata"
"$tools" export --format lcov --instr-profile "$folder/all.profdata" "$binary" > "$folder/lcov.info"
"${PYTHON:-python3}" scripts/uncovered.py rust "$folder/lcov.info"
