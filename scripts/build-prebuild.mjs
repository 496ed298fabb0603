#!/usr/bin/env node
// prebuildify runs this in place of node-gyp, with `rebuild --target=… --arch=…`, takes what is then in
// build/Release, strips it and moves it to prebuilds/<platform>-<arch>/. It knows no CMake, and a Node-API
// addon has no target version, so all that is passed is left aside.
process.argv.splice(2, Number.POSITIVE_INFINITY, "--prebuild");
await import("./build-native.mjs");
