// Checks that what the native build needs is there, and says in one line how to install what is not.
// Plain JavaScript without dependencies and without new syntax: it must run, and explain, on an old
// Node and before `npm ci`.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";

const require = createRequire(import.meta.url);

const kNode = [20, 19];
const kCmake = [3, 25];

/** First version number in the output of `command --version`, or null when it cannot be run. */
function versionOf(command) {
  const { status, stdout } = spawnSync(command, ["--version"], { encoding: "utf8" });
  if (status !== 0) return null;
  const match = /(\d+)\.(\d+)/.exec(stdout);
  return match ? [Number(match[1]), Number(match[2])] : [0, 0];
}

function canResolve(name) {
  try {
    require.resolve(`${name}/package.json`);
    return true;
  } catch {
    return false;
  }
}

function isOlder(found, wanted) {
  return found[0] < wanted[0] || (found[0] === wanted[0] && found[1] < wanted[1]);
}

function installLine(missing) {
  if (process.platform === "darwin") {
    const brew = missing.filter((tool) => tool === "cmake");
    // Apple's command line tools bring both the compiler and make.
    return [
      ...(brew.length < missing.length ? ["xcode-select --install"] : []),
      ...(brew.length > 0 ? ["brew install cmake"] : []),
    ].join(" && ");
  }
  const sudo = process.getuid?.() === 0 ? "" : "sudo ";
  const packages = missing.join(" ");
  if (existsSync("/etc/alpine-release")) return `${sudo}apk add ${packages}`;
  if (existsSync("/etc/redhat-release")) {
    return `${sudo}dnf install -y ${packages.replace("g++", "gcc-c++")}`;
  }
  return `${sudo}apt-get install -y ${packages}`;
}

/** One line per obstacle to a native build; empty when there is none. */
export function missingTools() {
  const node = process.versions.node.split(".").map(Number);
  if (isOlder(node, kNode)) {
    return [
      `Node.js ${kNode.join(".")} or newer is needed, this is ${process.versions.node}: nvm install 20`,
    ];
  }

  const missing = [];
  const compilers = process.env.CXX ? [process.env.CXX] : ["g++", "clang++", "c++"];
  if (!compilers.some((compiler) => versionOf(compiler))) missing.push("g++");
  const cmake = versionOf("cmake");
  if (!cmake) missing.push("cmake");
  if (!versionOf("ninja") && !versionOf("make")) missing.push("make");
  if (missing.length > 0) {
    return [`Missing build tools (${missing.join(", ")}): ${installLine(missing)}`];
  }

  if (isOlder(cmake, kCmake)) {
    return [
      `CMake ${kCmake.join(".")} or newer is needed, found ${cmake.join(".")}: pip install "cmake>=${kCmake.join(".")}"`,
    ];
  }
  const missingPackages = ["cmake-js", "node-addon-api"].filter((name) => !canResolve(name));
  if (missingPackages.length > 0) {
    // A clone has a lock file, an installed package has none.
    const install = existsSync(new URL("../package-lock.json", import.meta.url))
      ? "npm ci"
      : "npm install --no-save cmake-js@8 node-addon-api@8";
    return [
      `Packages that the build needs are missing (${missingPackages.join(", ")}): ${install}`,
    ];
  }
  return [];
}

export const projectRoot = fileURLToPath(new URL("..", import.meta.url));

/** Prints the obstacle and ends the process with code 1 when there is one. */
export function requireTools() {
  const lines = missingTools();
  if (lines.length === 0) return;
  for (const line of lines) console.error(line);
  process.exit(1);
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) requireTools();
