# Builds llama.cpp from the source package of llama-cpp-python for this very processor, once, in
# the user's cache. Sourced by run.sh and quality.sh; sets LLAMA to the folder of its programs.
# LLAMA in the environment names a folder to use instead. Needs python3 with pip, cmake, C++.

VERSION=0.3.36
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/peerproof

build_llama() {
    [ -z "${LLAMA:-}" ] || return 0
    folder=$CACHE/peers/llama-cpp-$VERSION
    LLAMA=$folder/build/bin
    for program in "$@"; do
        [ -x "$LLAMA/$program" ] || missing=1
    done
    [ -n "${missing:-}" ] || return 0
    mkdir -p "$folder"
    python3 -m pip download --no-deps --no-binary llama-cpp-python \
        -d "$folder" "llama-cpp-python==$VERSION" >&2
    tar -xzf "$folder"/llama_cpp_python-*.tar.gz -C "$folder" --strip-components 1
    cmake -S "$folder/vendor/llama.cpp" -B "$folder/build" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF >&2
    cmake --build "$folder/build" --target "$@" -j "$(nproc)" >&2
}
