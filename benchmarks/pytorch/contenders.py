"""What PyTorch and PEFT do with a sample, by the names that trial files use (benchmarks/contenders.ts)."""

import torch
from peft import PeftModel
from torch.func import functional_call, jacrev
from torch.nn.functional import cross_entropy
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

from kalman import Kalman


def load_model(trial):
    """The frozen model and its adapter, without dropout, as the other side reads them."""
    kind = AutoModelForSequenceClassification if "tokens" in trial else AutoModelForImageClassification
    # transformers refuses the option for models without attention.
    options = {} if trial["model"].startswith("resnet") else {"attn_implementation": "sdpa"}
    # Frozen weights in the trial's type; PEFT keeps the factors in float32 beside it.
    if trial["precision"] == "bfloat16":
        options["dtype"] = torch.bfloat16
    torch.backends.cuda.matmul.allow_tf32 = trial["precision"] == "tf32"
    base = kind.from_pretrained(trial["modelDir"], **options)
    model = PeftModel.from_pretrained(base, trial["adapterDir"], is_trainable=True)
    return model.eval().to(trial["device"])


def trained(model):
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


class Predict:
    """Forward only."""

    def __init__(self, model, trial):
        self.model = model

    @torch.inference_mode()
    def step(self, inputs, labels):
        return self.model(**inputs).logits, 0


class AdamW:
    """One gradient step as torch.optim takes it, the fused one."""

    def __init__(self, model, trial):
        self.model = model
        self.optimizer = torch.optim.AdamW(trained(model).values(), lr=trial["learningRate"], fused=True)

    def step(self, inputs, labels):
        logits = self.model(**inputs).logits
        cross_entropy(logits, labels).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return logits.detach(), 1


class GraphedAdamW(AdamW):
    """The same step, all of it in one CUDA graph, which is captured at the first."""

    def __init__(self, model, trial):
        self.model = model
        self.optimizer = torch.optim.AdamW(trained(model).values(), lr=trial["learningRate"], capturable=True)
        self.graph = None

    def capture(self, inputs, labels):
        self.inputs = {name: value.clone() for name, value in inputs.items()}
        self.labels = labels.clone()
        before = {name: value.detach().clone() for name, value in trained(self.model).items()}
        # Allocations and the choice of algorithms happen here, on a stream that is not captured.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                super().step(self.inputs, self.labels)
        torch.cuda.current_stream().wait_stream(stream)
        self.optimizer.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.logits = self.model(**self.inputs).logits
            cross_entropy(self.logits, self.labels).backward()
            self.optimizer.step()
        # As if the warm-up had not been.
        with torch.no_grad():
            for name, value in trained(self.model).items():
                value.copy_(before[name])
            for state in self.optimizer.state.values():
                for value in state.values():
                    value.zero_()

    def step(self, inputs, labels):
        if self.graph is None:
            self.capture(inputs, labels)
        for name, value in inputs.items():
            self.inputs[name].copy_(value)
        self.labels.copy_(labels)
        # Gradients are written, not added to, because there were none when the graph was captured.
        self.graph.replay()
        return self.logits.detach().clone(), 1


class Loko:
    """The Kalman filter over a Jacobian of k rows; the subclasses differ in how they compute it."""

    def __init__(self, model, trial, reduced):
        self.model = model
        self.parameters = trained(model)
        self.filter = Kalman(trial["classes"], reduced)
        self.rows = self.filter.cotangents().to(next(model.parameters()).dtype)

    def step(self, inputs, labels):
        z, g = self.jacobian(inputs)
        delta = self.filter.change(z, g, int(labels[0]))
        pieces = delta.split([value.numel() for value in self.parameters.values()])
        with torch.no_grad():
            for value, piece in zip(self.parameters.values(), pieces, strict=True):
                value += piece.view_as(value)
        return z[None], g.shape[0]


class Loop(Loko):
    """One backward pass after the other over the same graph."""

    def jacobian(self, inputs):
        z = self.model(**inputs).logits[0]
        parameters = list(self.parameters.values())
        g = torch.empty(len(self.rows), sum(value.numel() for value in parameters))
        for i, row in enumerate(self.rows):
            last = i == len(self.rows) - 1
            blocks = torch.autograd.grad(z, parameters, row, retain_graph=not last)
            torch.cat([block.flatten() for block in blocks], out=g[i])
        return z.detach(), g


class Batched(Loko):
    """All rows in one backward pass under vmap."""

    def jacobian(self, inputs):
        z = self.model(**inputs).logits[0]
        blocks = torch.autograd.grad(z, list(self.parameters.values()), self.rows, is_grads_batched=True)
        return z.detach(), torch.cat([block.flatten(1) for block in blocks], dim=1)


class Jacrev(Loko):
    """torch.func.jacrev over the functional model."""

    def jacobian(self, inputs):
        def observed(theta):
            z = functional_call(self.model, theta, kwargs=inputs).logits[0]
            return self.rows @ z, z.detach()

        theta = {name: value.detach() for name, value in self.parameters.items()}
        blocks, z = jacrev(observed, has_aux=True)(theta)
        return z, torch.cat([block.flatten(1) for block in blocks.values()], dim=1)


JACOBIANS = {"loop": Loop, "batched": Batched, "jacrev": Jacrev}


def make(name, trial):
    """The contender of that name, with `step(inputs, labels) -> (logits, cotangent rows)`."""
    model = load_model(trial)
    _, work, *rest = name.split()
    if work == "loko":
        return JACOBIANS[rest[0]](model, trial, reduced="m-1" in rest)
    if "graph" in rest:
        return GraphedAdamW(model, trial)
    if "compiled" in rest:
        # On a GPU with CUDA graphs of what it compiles.
        model = torch.compile(model, mode="reduce-overhead" if trial["device"] == "cuda" else "default")
    return {"adamw": AdamW, "predict": Predict}[work](model, trial)
