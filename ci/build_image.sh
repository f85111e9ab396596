#!/bin/bash
# Build an image of one row of version_matrix.toml. See --help.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    cat <<'TEXT'
usage: ci/build_image.sh -a cpu|910b|310p [-r EXTRA] [-o debian|openeuler] [-b IMAGE] [-t NAME] [--dry-run]

  -a, --arch      what it is for: the CPU, Atlas A2 (910b), or Atlas 300I Pro, 300I Duo and 300V Pro (310p)
  -r, --row       extra of the vLLM release (default: vllm091)
  -o, --os        system of the base image (default: debian, which is Ubuntu where there is CANN)
  -b, --base      base image, with Python 3.9 to 3.11 (default: the system's own for cpu, a CANN 8.3.RC1 image for the others)
  -t, --tag       name of the image (default: vllm-mindspore:EXTRA-ARCH-OS)
      --dry-run   print the command, run nothing

It needs docker or podman. The models run on the CPU in every image: this version has no Ascend backend.

examples:
  ci/build_image.sh -a cpu
  ci/build_image.sh -a 910b --row vllm083 --os openeuler --dry-run
TEXT
}

wrong() {
    echo "ci/build_image.sh: $1; see --help" >&2
    exit 2
}

arch='' row=vllm091 os=debian base='' tag='' dry=''
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --dry-run) dry=yes; shift; continue ;;
        -a | --arch | -r | --row | -o | --os | -b | --base | -t | --tag) [ -n "${2:-}" ] || wrong "$1 wants a value" ;;
        *) wrong "$1 is no option" ;;
    esac
    case $1 in
        -a | --arch) arch=$2 ;;
        -r | --row) row=$2 ;;
        -o | --os) os=$2 ;;
        -b | --base) base=$2 ;;
        -t | --tag) tag=$2 ;;
    esac
    shift 2
done

# All have Python 3.11, with which the pairs were verified. All locks pin a MindSpore that takes CANN 8.3, see [toolkits] in version_matrix.toml.
case $arch-$os in
    cpu-debian) default=debian:12 ;;
    cpu-openeuler) default=openeuler/openeuler:24.03-lts ;;
    910b-debian | 310p-debian) default=ascendai/cann:8.3.rc1-$arch-ubuntu22.04-py3.11 ;;
    910b-openeuler | 310p-openeuler) default=ascendai/cann:8.3.rc1-$arch-openeuler24.03-py3.11 ;;
    -*) wrong "-a is missing: cpu, 910b or 310p" ;;
    *-debian | *-openeuler) wrong "-a $arch is none of cpu, 910b and 310p" ;;
    *) wrong "-o $os is neither debian nor openeuler" ;;
esac
[ -f "locks/$row.txt" ] || wrong "-r $row is none of $(basename -s .txt -a locks/*.txt | paste -sd ' ')"

engine=docker
command -v docker >/dev/null || ! command -v podman >/dev/null || engine=podman
command=("$engine" build --file "ci/images/Dockerfile.$os" --build-arg "BASE=${base:-$default}" --build-arg "EXTRA=$row"
    --tag "${tag:-vllm-mindspore:$row-$arch-$os}" .)
if [ -n "$dry" ]; then
    printf '%q ' "${command[@]}"
    echo
    exit 0
fi
command -v "$engine" >/dev/null || { echo "ci/build_image.sh: neither docker nor podman is here: install one, or see the command with --dry-run" >&2; exit 1; }
exec "${command[@]}"
