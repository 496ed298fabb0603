// Finds PyTorch's side.
import { spawnSync } from "node:child_process";
import { delimiter, join } from "node:path";
import { ROOT } from "./paths.js";

const MODULES = ["torch", "transformers", "peft", "safetensors"];

/** An interpreter that has all that PyTorch's side needs, and the folder that it is installed in. */
export interface Python {
  readonly path: string;
  readonly prefix: string;
}

/** The first of LOKO_PYTHON, a list as PATH is one, that has them; python3 where it is not set. */
export function findPython(): Python | { readonly missing: string } {
  const paths = (process.env.LOKO_PYTHON ?? "python3").split(delimiter);
  const answers = paths.map(askPython);
  return answers.find((answer) => "path" in answer) ?? answers[0]!;
}

function askPython(path: string): Python | { readonly missing: string } {
  const code =
    "import importlib.util as u, sys; " +
    "print(sys.prefix); print(*[m for m in sys.argv[1:] if u.find_spec(m) is None])";
  const { status, stdout } = spawnSync(path, ["-c", code, ...MODULES], { encoding: "utf8" });
  if (status !== 0) return { missing: `${path} cannot be run` };
  const [prefix = "", lacking = ""] = stdout.trim().split("\n");
  return lacking === ""
    ? { path, prefix }
    : { missing: `${path} lacks ${lacking.replaceAll(" ", ", ")}` };
}

/** Both sides with the same cuBLASLt: that of PyTorch's environment, where the user has not chosen one. */
export function lokoEnvironment(python: Python | undefined): NodeJS.ProcessEnv {
  const { LOKO_CUBLASLT, VIRTUAL_ENV, CONDA_PREFIX } = process.env;
  if (python === undefined || (LOKO_CUBLASLT ?? VIRTUAL_ENV ?? CONDA_PREFIX) !== undefined) {
    return process.env;
  }
  return { ...process.env, VIRTUAL_ENV: python.prefix };
}

export function torchCommand(python: string, trialFile: string, contender: string): string[] {
  return [python, "-W", "ignore", join(ROOT, "benchmarks/pytorch/runner.py"), trialFile, contender];
}

/** Without what would slow it down or let it look for models elsewhere; compiled code is kept. */
export function torchEnvironment(threads: number, workDir: string): NodeJS.ProcessEnv {
  // A BLAS that was told another CPU would race with a handicap.
  const kept = Object.entries(process.env).filter(
    ([name]) => !/^(OPENBLAS|MKL|OMP|KMP)_/.test(name),
  );
  return {
    ...Object.fromEntries(kept),
    OMP_NUM_THREADS: String(threads),
    HF_HUB_OFFLINE: "1",
    TOKENIZERS_PARALLELISM: "false",
    TORCHINDUCTOR_CACHE_DIR: join(workDir, "inductor"),
  };
}
