"""The base model in NF4 and the adapters on it.

trainable = prepare(config, folder, device)    base, adapters, loss head: what the loop trains
load_base(config, folder)                      the quantised base alone
load_trained(run)                              base and trained adapter of a finished run, for export
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from . import config as configuration
from . import hub
from .errors import NoGpu, OutOfMemory, UnsupportedModel, VocabularyMismatch
from .kernels import flex
from .kernels.frozen_head_ce import frozen_head_ce
from .kernels.lora_linear import fuse
from .recompute import Layers
from .settings import ModelConfig, TrainConfig

ADAPTER_FILE = "adapter_model.safetensors"


def pick_device(wanted: str) -> torch.device:
    """The device for `run.device`: auto takes a card where there is one."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise NoGpu("No GPU, run.device=cuda. Check the driver with nvidia-smi, or use --set run.device=auto.")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def load_base(config: TrainConfig, folder: Path | None = None, device: str | torch.device = "cpu") -> nn.Module:
    """Load the base in NF4 with double quantisation, frozen, on one device.

    `folder` defaults to where `hub.fetch` finds the model. Raises UnsupportedModel where transformers or
    bitsandbytes cannot load it.
    """
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    if folder is None:
        folder = hub.fetch(config.model, default_home(config.model), weights=True)
    compute = getattr(torch, config.model.compute)
    attention = config.memory.attention
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=compute,
            attn_implementation="eager" if attention == "auto" else attention,
            device_map={"": str(device)},
            quantization_config=BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=compute,
            ),
        )
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            f"Out of memory while the model loads, {folder}. Free what other programs hold (--unload lets Ollama's "
            "models go), or use a smaller model."
        ) from error
    except (OSError, SafetensorError) as error:
        raise UnsupportedModel(
            f"Weights missing or damaged, {folder}: {_brief(error)}. Fetch the model again, as safetensors."
        ) from None
    except (ValueError, KeyError, RuntimeError) as error:
        raise UnsupportedModel(
            f"Cannot load the model, {folder}: {_brief(error)}. Use a decoder such as Gemma or Llama."
        ) from None
    _keep_text_only(model)
    _keep_packing(model)
    if attention == "flex_attention":
        flex.fit(model.config.get_text_config(), torch.device(device))
    model.requires_grad_(False)
    model.config.use_cache = False
    return model


def load_trained(run: Path, device: str | torch.device = "cpu") -> nn.Module:
    """The base of a run with its trained adapter (a PeftModel in eval mode, adapter in fp32)."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    config = configuration.load(run / "config.json").config
    base = load_base(config, base_folder(run, config), device)
    model = attach(base, config)
    set_peft_model_state_dict(model, load_file(run / "adapter" / ADAPTER_FILE, device=str(device)))
    return model.eval()


def base_folder(run: Path, config: TrainConfig) -> Path:
    """The folder of a run's base model, with weights."""
    return hub.fetch(config.model, run / "base", weights=True)


def default_home(model: ModelConfig) -> Path:
    """Where a base that we make ourselves goes when no run owns it."""
    return Path.home() / ".cache" / "agent-loop" / model.id


def attach(base: nn.Module, config: TrainConfig) -> Any:
    """Put adapters on the base: fp32, drawn from `run.seed`. Returns a PeftModel."""
    from peft import LoraConfig, get_peft_model

    targets = config.lora.targets
    torch.manual_seed(config.run.seed)
    try:
        model = get_peft_model(
            base,  # type: ignore[arg-type]
            LoraConfig(
                r=config.lora.rank,
                lora_alpha=config.lora.alpha,  # type: ignore[arg-type]
                lora_dropout=config.lora.dropout,
                target_modules=targets if isinstance(targets, str) else list(targets),
                use_rslora=config.lora.rslora,
                use_dora=config.lora.dora,
                task_type="CAUSAL_LM",
            ),
        )
    except ValueError as error:
        raise UnsupportedModel(f"Cannot attach adapters: {_brief(error)}. Name layers in lora.targets.") from None
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


@dataclass(frozen=True)
class Trainable:
    """What the loop works on."""

    model: Any
    decoder: nn.Module
    """Gives last hidden states; its layers carry the adapters."""
    head: Tensor
    softcap: float
    parameters: tuple[nn.Parameter, ...]
    device: torch.device
    compute: torch.dtype
    layers: Layers
    """What the decoder's layers recompute; a step that runs out of memory may change it."""

    def loss(self, ids: Tensor, positions: Tensor, rows: Tensor, targets: Tensor, chunk: int) -> Tensor:
        """The summed loss of a micro-batch.

        ids, positions int64 [b, s]; rows int64 [n]: flat places whose next token is learned; targets int64 [n].
        Positions that restart at 0 separate rows that share a sequence; no attention mask is passed, because
        transformers looks for the restarts only without one.
        """
        with self.autocast():
            hidden = self.decoder(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
        picked = hidden.reshape(-1, hidden.shape[-1])[rows]
        return frozen_head_ce(picked, self.head, targets, softcap=self.softcap, chunk=chunk)

    def autocast(self) -> torch.autocast:
        """bf16 for the adapters' products on a card; on a CPU they stay fp32, which is faster there."""
        cuda = self.device.type == "cuda"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=cuda and self.compute == torch.bfloat16)

    def adapter(self) -> dict[str, Tensor]:
        """The adapters' weights as PEFT names them."""
        from peft import get_peft_model_state_dict

        return get_peft_model_state_dict(self.model)

    def set_adapter(self, weights: Mapping[str, Tensor]) -> None:
        """Load the adapters' weights; they stay fp32."""
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(self.model, dict(weights))

    def adapter_config(self, base: str) -> str:
        """`adapter_config.json` as PEFT writes it, naming the base model."""
        settings = self.model.peft_config["default"].to_dict()
        settings["base_model_name_or_path"] = base
        settings["inference_mode"] = True
        return json.dumps(_plain(settings), indent=2, sort_keys=True) + "\n"


def prepare(config: TrainConfig, folder: Path, device: torch.device, tokenizer_size: int) -> Trainable:
    """Load, attach and set up as the plan decided. Raises VocabularyMismatch, UnsupportedModel."""
    base: Any = load_base(config, folder, device)
    rows = base.get_input_embeddings().weight.shape[0]
    if tokenizer_size > rows:
        raise VocabularyMismatch(
            f"Tokenizer and model disagree, {folder}: {tokenizer_size} tokens, {rows} rows in the embedding. "
            "Use the tokenizer that came with the model."
        )
    if config.memory.resident == "on":
        make_resident(base)
    head = base.get_output_embeddings()
    if head is None or getattr(head, "bias", None) is not None:
        raise UnsupportedModel(f"Unsupported model, {type(base).__name__} has no plain output head. Use another.")
    softcap = float(getattr(base.config.get_text_config(), "final_logit_softcapping", None) or 0.0)
    model = attach(base, config)
    fuse(model)
    decoder = base.get_decoder()
    _check_head(base, decoder, head.weight, softcap)
    level = "off" if config.memory.checkpointing == "auto" else config.memory.checkpointing
    layers = Layers(decoder.layers, level, rank=config.lora.rank, compiled=config.memory.compile == "on")
    parameters = tuple(p for p in model.parameters() if p.requires_grad)
    compute = getattr(torch, config.model.compute)
    return Trainable(model, decoder, head.weight, softcap, parameters, device, compute, layers)


def make_resident(model: nn.Module) -> None:
    """Replace NF4 layers by their dequantised values: the same logits, no dequantising in each pass, 4x the bytes."""
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn.modules import Linear4bit

    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Linear4bit):
                weight: Any = child.weight
                bias = child.get_parameter("bias") if "bias" in child.state_dict() else None
                plain = dequantize_4bit(weight.data, weight.quant_state)
                layer = nn.Linear(child.in_features, child.out_features, bias=bias is not None, device="meta")
                layer.weight = nn.Parameter(plain, requires_grad=False)
                if bias is not None:
                    layer.bias = nn.Parameter(bias.data, requires_grad=False)
                setattr(module, name, layer)


def _keep_text_only(model: nn.Module) -> None:
    """Drop what looks and listens (Gemma 3 from 4B up): text never reaches it, adapters on it would learn nothing."""
    for module in list(model.modules()):
        for name in ("vision_tower", "multi_modal_projector", "audio_tower", "embed_vision", "embed_audio"):
            if isinstance(getattr(module, name, None), nn.Module):
                setattr(module, name, None)


def _keep_packing(model: nn.Module) -> None:
    """Stop bitsandbytes from repacking NF4 weights on CPUs with AVX512-BF16.

    Its first forward pass in eval mode repacks in place (0.50.2); later passes then lose the gradient through the
    base, and dequantising gives garbage. Must run before the first such pass.
    """
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


@torch.no_grad()
def _check_head(base: Any, decoder: nn.Module, head: Tensor, softcap: float) -> None:
    """Prove on four tokens that decoder, head and soft-cap give the model's own logits."""
    was_training = base.training
    base.eval()
    ids = torch.arange(4, device=head.device)[None]
    try:
        hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise UnsupportedModel(
            f"Cannot run the model, {type(base).__name__}: {_brief(error)}. Take weights and config.json from the same "
            "place."
        ) from None
    ours = (hidden.to(head.dtype) @ head.t()).float()
    if softcap:
        ours = torch.tanh(ours / softcap) * softcap
    theirs = base(input_ids=ids, use_cache=False).logits.float()
    base.train(was_training)
    if ours.shape != theirs.shape or (ours - theirs).abs().max() > 0.05 * theirs.abs().max().clamp(min=1.0):
        raise UnsupportedModel(
            f"Unsupported model, {type(base).__name__} turns hidden states into logits in a way of its own. Use a "
            "decoder such as Gemma, Llama, Mistral or Qwen."
        )


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(_plain(v) for v in value)
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
