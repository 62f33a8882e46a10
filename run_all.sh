#!/usr/bin/env bash
# The one command of this project: sets its environment up where that is missing, then builds, tests or serves.
# `./run_all.sh help` lists what it can do.
set -euo pipefail

ROOT="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)"
ENV_DIR="$ROOT/.venv"
PYTHON="$ENV_DIR/bin/python"
STAMP="$ENV_DIR/.requirements.sha256"     # written last: without it the environment is not finished
UNFINISHED="$ENV_DIR/.setup-running"      # present while set-up runs: an environment that has it is redone

TORCHAUDIO="torchaudio==2.11.1"           # works with PyTorch 2.11 and all later ones

declare -A MODULES=( # what each command runs
  [test]=pytest
  [serve]=temporal_workflow.serve
  [demo]=lib.reporting.demo
  [release]=lib.reporting.release
  [studies]=lib.studies
  [chaos]=tests.chaos
  [benchmark]=lib.studies.benchmark
  [fuzz]=tests.decoding.fuzz_audio
)

usage() {
  cat <<'TEXT'
./run_all.sh [quick|full]      set up what is missing, run the seven notebooks, write reports/<profile>/index.html
    --data auto|real|synthetic   which audio: first tier that works (default) | never synthetic | always synthetic
    --from NN                    leave the notebooks before NN as they are and rerun from there
    --force                      rerun everything, changed or not
    --without-studies            full: leave the studies as they are
./run_all.sh test [ARGS]       run the tests (ARGS go to pytest)
./run_all.sh doctor            what is installed, cached, reachable and missing, and the next command for each fault
./run_all.sh serve [ARGS]      Temporal dev server with Web UI, and workers (--workers N)
./run_all.sh demo              a local page: the detector on your microphone, or on a file (--port N)
./run_all.sh studies [NAME ...]  what the full build's numbers are worth (without NAME all but product, about an hour;
    product                      trains models/detector anew and measures it, half an hour)
./run_all.sh release           export the full build's networks, copy its models into models/, write their cards
./run_all.sh chaos [ARGS]      kill workers and servers while audio streams in, and count what is lost
./run_all.sh benchmark [ARGS]  speed, memory and size beside a plain way of doing the same (an hour or more, idle machine)
./run_all.sh fuzz [ARGS]       feed damaged audio to the decoder
./run_all.sh setup             only set the environment up
./run_all.sh help              this text

AUDIO_MIRROR=DIR       read recordings from a folder laid out <owner>/<repo>/<commit>/<path> instead of the network
TFHUB_CACHE_DIR=DIR    TensorFlow Hub's cache, for YAMNet without a network
AUDIOSET_WEIGHTS_DIR=DIR  weights of the appendix's second network, as published
AUDIO_OUTPUT_DIR=DIR   put data/, build/ and reports/ elsewhere
AUDIO_THREADS=N        threads of one network that serves; workers: cores / slots unless set
AUDIO_OFFLINE=1        open no connection: mirror, what is there already, or generated audio
TEXT
}

say() { printf '%s\n' "$*"; }

fail() {
  printf '%s\n' "$*" >&2
  exit 1
}

# A Python 3.11 to make the environment with, or nothing.
find_python() {
  local candidate
  for candidate in python3.11 python3 python; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1; then
      "$candidate" -c 'import sys; print(sys.executable)'
      return
    fi
  done
}

wanted_stamp() { cat "$ROOT"/requirements*.txt "$ROOT/environment.yml" | sha256sum | cut -d' ' -f1; }

is_set_up() {
  [[ -x "$PYTHON" && -f "$STAMP" && ! -e "$UNFINISHED" && "$(<"$STAMP")" == "$(wanted_stamp)" ]]
}

has_gpu() { command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU; }

# One setting of pip (find-links, extra-index-url, index-url) from its files and variables, a value a line.
pip_setting() {
  "$PYTHON" - "$1" <<'CODE'
import configparser, os, subprocess, sys
name = sys.argv[1]
values = os.environ.get("PIP_" + name.upper().replace("-", "_"), "").split()
listing = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
if not listing:  # an environment made by uv has no pip: read pip's own files
    files = [os.environ.get("PIP_CONFIG_FILE", ""), "/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf"]
    parser = configparser.RawConfigParser()
    parser.read(os.path.expanduser(file) for file in files if file)
    sections = [section for section in ("global", "install") if parser.has_section(section)]
    listing = "\n".join(f"{s}.{k}={v!r}" for s in sections for k, v in parser.items(s))
for line in listing.splitlines():
    key, _, value = line.partition("=")
    if key.rsplit(".", 1)[-1] == name and not key.startswith(":env:"):
        values += value.strip("'\"").replace("\\n", " ").split()
print("\n".join(dict.fromkeys(values)))
CODE
}

# Where PyTorch comes from: its CPU index on machines without an NVIDIA GPU when that answers, else the usual places.
cpu_torch_index() {
  local url="https://download.pytorch.org/whl/cpu"
  if ! has_gpu && "$PYTHON" - "$url/torch/" <<'CODE' >/dev/null 2>&1
import sys, urllib.request
urllib.request.urlopen(urllib.request.Request(sys.argv[1], method="HEAD"), timeout=3)
CODE
  then
    say "$url"
  fi
}

install_requirements() {
  local -a arguments=(-r "$ROOT/requirements.txt")
  local value index
  while IFS= read -r value; do [[ -z "$value" ]] || arguments+=(--find-links "$value"); done < <(pip_setting find-links)
  while IFS= read -r value; do [[ -z "$value" ]] || arguments+=(--extra-index-url "$value"); done < <(pip_setting extra-index-url)
  while IFS= read -r value; do [[ -z "$value" ]] || arguments+=(--index-url "$value"); done < <(pip_setting index-url)
  index="$(cpu_torch_index)"

  local uv
  uv="$(find_uv)"
  # Like pip, take the best version over all places; uv alone would stop at the first that knows the name.
  local -a uv_arguments=(--python "$PYTHON" --compile-bytecode --index-strategy unsafe-best-match)
  [[ -z "$index" ]] || uv_arguments+=(--torch-backend cpu)
  if [[ -n "$uv" ]] && "$uv" pip install "${uv_arguments[@]}" "${arguments[@]}"; then
    with_sound_library "${arguments[@]:2}" # without -r requirements.txt
  else
    say "uv is not available here, or failed: installing with pip, which takes longer."
    [[ -z "$index" ]] || arguments+=(--extra-index-url "$index")
    install_with_pip "${arguments[@]}" || return
  fi
  with_torchaudio "$index"
}

# torchaudio comes from where PyTorch came from: its own index, or PyPI beside a CUDA build. One that was built for
# another PyTorch fails to import, and Wav2Vec2 with it, so that is taken out again. Without it all but a cell works.
with_torchaudio() {
  [[ -n "$1" ]] || has_gpu || return 0
  install_with_pip --quiet --no-deps ${1:+--index-url "$1"} "$TORCHAUDIO" || return 0
  if ! "$PYTHON" -c 'import torchaudio' >/dev/null 2>&1; then
    say "torchaudio does not fit this PyTorch and is left out."
    "$PYTHON" -m pip uninstall --quiet --yes torchaudio
  fi
}

install_with_pip() {
  "$PYTHON" -m pip --version >/dev/null 2>&1 || "$PYTHON" -m ensurepip >/dev/null
  "$PYTHON" -m pip install --compile "$@"
}

# soundfile is published with libsndfile for each platform, and once without it. Where one index has the latter and
# another the former, uv keeps to the first index that has the version; pip takes the build for this platform, whose
# libsndfile is the one that the tests know. Where there is none, the system's serves.
with_sound_library() {
  ! "$PYTHON" -c 'import _soundfile_data' >/dev/null 2>&1 || return 0
  say "soundfile came without libsndfile: pip takes its build for this platform."
  install_with_pip --quiet --force-reinstall --no-deps "$@" "$(grep -oh '^soundfile==[^ #]*' "$ROOT"/requirements*.txt)"
  "$PYTHON" -c 'import soundfile' || fail "soundfile finds no libsndfile. Next: sudo apt-get install -y libsndfile1"
}

# conda, mamba or micromamba, whichever is there; fails softly, since their channels may be out of reach.
create_with_conda() {
  local tool base
  for tool in micromamba mamba conda; do
    command -v "$tool" >/dev/null 2>&1 || continue
    say "Creating the environment with $tool ..."
    # The pip section is left to install_requirements, which knows about CPU builds, uv and byte code.
    base="$(mktemp --suffix=.yml)"
    grep -v -e '- pip:' -e '- -r requirements.txt' "$ROOT/environment.yml" >"$base"
    local -a verb=(env create)
    [[ "$tool" != micromamba ]] || verb=(create)
    if "$tool" "${verb[@]}" -y -q -p "$ENV_DIR" -f "$base"; then
      rm -f "$base"
      return 0
    fi
    rm -rf "$ENV_DIR" "$base"
    say "$tool could not create the environment: going on with a virtual environment."
  done
  return 1
}

# uv, which can fetch a Python 3.11: the one that is there, or one that any Python's pip puts into build/; or nothing.
find_uv() {
  local candidate
  for candidate in uv "$HOME/.local/bin/uv" "$ROOT/build/.uv/bin/uv"; do
    ! "$candidate" --version >/dev/null 2>&1 || { say "$candidate"; return; }
  done
  for candidate in "$PYTHON" python3 python python3.13 python3.12; do
    if "$candidate" -m pip install -q --target "$ROOT/build/.uv" uv >/dev/null 2>&1; then
      say "$ROOT/build/.uv/bin/uv"
      return
    fi
  done
}

# The command that brings a Python 3.11, or uv, to this machine.
python_hint() {
  if ! command -v apt-get >/dev/null 2>&1; then
    say "install uv (https://docs.astral.sh/uv/) or micromamba"
  elif apt-cache show python3.11-venv >/dev/null 2>&1; then
    say "sudo apt-get install -y python3.11 python3.11-venv"
  else # Ubuntu 24.04, Debian 13: their Python is another
    say "sudo apt-get install -y pipx && pipx install uv"
  fi
}

create_with_venv() {
  local python uv
  python="$(find_python)"
  if [[ -n "$python" ]] && "$python" -m venv "$ENV_DIR" >/dev/null 2>&1; then
    return
  fi
  rm -rf "$ENV_DIR"
  uv="$(find_uv)"
  if [[ -n "$uv" ]] && "$uv" venv -q --seed --python "${python:-3.11}" "$ENV_DIR"; then
    return
  fi
  if [[ -n "$python" ]]; then
    fail "$python cannot make virtual environments. Next: sudo apt-get install -y python3.11-venv" \
      "(on Debian 12 also: python3-venv), then ./run_all.sh again."
  fi
  fail "Python 3.11 is missing${uv:+, and uv could not fetch it}. Next: $(python_hint), then ./run_all.sh again."
}

set_up() {
  is_set_up && return
  local started=$SECONDS
  # Another run_all.sh may be setting up at this moment: wait for it instead of spoiling its work.
  mkdir -p "$ROOT/build"
  exec 9>"$ROOT/build/.setup.lock"
  command -v flock >/dev/null 2>&1 && flock 9
  is_set_up && { exec 9>&-; return; }

  if [[ -e "$UNFINISHED" || (-e "$ENV_DIR" && ! -x "$PYTHON") ]]; then
    say "An earlier set-up was interrupted: starting it again."
    rm -rf "$ENV_DIR"
  fi
  say "Setting up the environment in .venv (once) ..."
  if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1; then
    rm -rf "$ENV_DIR"
    create_with_conda || create_with_venv
  fi
  touch "$UNFINISHED"
  # Byte code is wanted even where the caller forbids it: without it every import of TensorFlow takes seconds more.
  (unset PYTHONDONTWRITEBYTECODE && install_requirements) ||
    fail "The packages could not be installed. Next: ./run_all.sh doctor, then ./run_all.sh again."
  wanted_stamp >"$STAMP"
  rm -f "$UNFINISHED"
  exec 9>&-
  say "Environment ready in $((SECONDS - started)) s."
}

run_module() {
  local module="$1"
  shift
  cd "$ROOT"
  export PATH="$ENV_DIR/bin:$PATH"
  exec "$PYTHON" -m "$module" "$@"
}

main() {
  local command="${1:-quick}"
  [[ "$command" != -* || "$command" == -h || "$command" == --help ]] || command=quick
  case "$command:${2:-}" in
    setup:-h | setup:--help | doctor:-h | doctor:--help | release:-h | release:--help) command=help ;;
  esac
  case "$command" in
    help | -h | --help) usage ;;
    doctor)
      local python="$PYTHON"
      [[ -x "$python" ]] || python="$(find_python)"
      [[ -n "$python" ]] || fail "Python 3.11 is missing. Next: ./run_all.sh setup, or $(python_hint)"
      cd "$ROOT" && exec "$python" -m lib.reporting.doctor
      ;;
    setup) set_up ;;
    test | serve | demo | release | studies | chaos | benchmark | fuzz)
      shift
      set_up
      run_module "${MODULES[$command]}" "$@"
      ;;
    *)
      if [[ "$command" != quick || "${1:-}" == quick ]]; then shift || true; fi
      [[ -f "$ROOT/params/$command.yaml" ]] || { usage >&2; fail "Unknown command: $command"; }
      set_up
      run_module lib.reporting.build "$command" "$@"
      ;;
  esac
}

main "$@"
