#!/bin/sh
# Cross-compile the CPU kernels for aarch64 and check them under emulation; then the same for this machine.
# Debian: apt-get install cmake ninja-build g++ g++-aarch64-linux-gnu qemu-user
set -eu
cd "$(dirname "$0")/.."
build=${1:-build/aarch64}

for tool in cmake ninja aarch64-linux-gnu-g++ qemu-aarch64; do
    command -v $tool >/dev/null || { echo "$0 needs $tool: apt-get install cmake ninja-build g++-aarch64-linux-gnu qemu-user" >&2; exit 2; }
done

# check NAME COMPILER EMULATOR CMAKE_OPTION...
check() {
    folder=$build/$1 compiler=$2 emulator=$3
    shift 3
    cmake -G Ninja -S kernels/cpu/csrc -B "$folder" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER="$compiler" "$@" >/dev/null
    cmake --build "$folder"
    "$compiler" -std=c++17 -O2 -Wall -Wextra ci/aarch64_check.cc -o "$folder/check" -L"$folder" -lvllm_mindspore_cpu "-Wl,-rpath,\$ORIGIN"
    $emulator "$folder/check"
}

check native "${CXX:-g++}" ""
check aarch64 aarch64-linux-gnu-g++ "qemu-aarch64 -L /usr/aarch64-linux-gnu" -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64
