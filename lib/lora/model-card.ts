// The README.md of an adapter: how Python opens it.

import type { Architecture } from "../models/architecture.js";

export interface CardFacts {
  /** Of the base model. */
  readonly directory: string;
  readonly architecture: Architecture;
  readonly numLabels: number;
  /** Whether the base model has no head, or one of another size. */
  readonly hasNewHead: boolean;
}

export function modelCard(facts: CardFacts): string {
  const { architecture, directory, numLabels } = facts;
  return `---
base_model: ${JSON.stringify(directory)}
library_name: peft
tags:
- lora
- loko
---

A LoRA adapter for \`${architecture.taskClass}\` with ${numLabels} labels, trained with LoKO for Node.js.

\`\`\`python
from peft import PeftModel
${baseModel(facts)}
model = PeftModel.from_pretrained(base, "path/of/this/folder").eval()
\`\`\`
`;
}

/** Python that makes the base model: by the library that the class is of, or the user's own class. */
function baseModel({ architecture, directory, numLabels, hasNewHead }: CardFacts): string {
  const { taskClass, pythonModule, modelType } = architecture;
  const folder = JSON.stringify(directory);
  if (pythonModule === null) {
    return `from safetensors.torch import load_model

base = ${taskClass}(...)  # the module of the base model
load_model(base, ${JSON.stringify(`${directory}/model.safetensors`)})`;
  }
  if (pythonModule.startsWith("timm.")) {
    return `import timm

base = timm.create_model(${JSON.stringify(`local-dir:${directory}`)}, pretrained=True, num_classes=${numLabels})
# or torchvision.models.${modelType}(num_classes=${numLabels}) with the same weights`;
  }
  const size = `num_labels=${numLabels}${hasNewHead ? ", ignore_mismatched_sizes=True" : ""}`;
  return `from transformers import ${taskClass}

base = ${taskClass}.from_pretrained(${folder}, ${size})`;
}
