"""Tiny models with the tokenizers of Llama 3 and Qwen: byte-pair merges over bytes, trained on our example chats.

The patterns that split text before merging, the special tokens and the chat templates are those that the families
publish; vocabulary and weights are ours.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.data import EXAMPLES

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORDS = r"|[^\r\n\p{L}\p{N}]?\p{L}+"

LLAMA_TURNS = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' "
    "+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
QWEN_TURNS = (
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{%- endif %}"
    "{%- for message in messages %}{%- if message.role != 'system' or not loop.first %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)


@dataclass(frozen=True)
class Family:
    """`model`: the name of transformers' classes. `tokens`: bos (or none), end of turn, end of text, further ones."""

    model: str
    pattern: str
    begin: str | None
    end_of_turn: str
    more: tuple[str, ...]
    template: str
    biases: bool = False


FAMILIES = {
    "llama3": Family(
        "Llama",
        CONTRACTIONS + WORDS + r"|\p{N}{1,3}" + REST,
        "<|begin_of_text|>",
        "<|eot_id|>",
        ("<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
        LLAMA_TURNS,
    ),
    "qwen2": Family(
        "Qwen2",
        CONTRACTIONS + WORDS + r"|\p{N}" + REST,
        None,
        "<|im_end|>",
        ("<|endoftext|>", "<|im_start|>"),
        QWEN_TURNS,
    ),
    "qwen3": Family(
        "Qwen3",
        CONTRACTIONS + WORDS + r"|\p{N}" + REST,
        None,
        "<|im_end|>",
        ("<|endoftext|>", "<|im_start|>"),
        QWEN_TURNS,
    ),
}
SIZES = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
}


def make_tokenizer(folder: Path, family: Family, *, pattern: str | None = None) -> int:
    """Write tokenizer files as the family's models have them; returns the number of tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer: Any = Tokenizer(models.BPE(ignore_merges=family.begin is not None))
    split = pre_tokenizers.Split(Regex(pattern or family.pattern), "isolated")
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, plain])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(EXAMPLES.read_text().splitlines(), trainer)
    special = [family.end_of_turn, *family.more] + ([family.begin] if family.begin else [])
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    if family.begin:
        at = tokenizer.token_to_id(family.begin)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{family.begin} $A", special_tokens=[(family.begin, at)]
        )
    else:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    words = {
        "tokenizer_class": "PreTrainedTokenizerFast" if family.begin else "Qwen2Tokenizer",
        "bos_token": family.begin,
        "eos_token": family.end_of_turn,
        "pad_token": family.more[0],
        "chat_template": family.template,
        "added_tokens_decoder": {
            str(tokenizer.token_to_id(text)): {"content": text, "special": True, "normalized": False}
            for text in special
        },
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    return tokenizer.get_vocab_size()


def make(folder: Path, family: Family, *, pattern: str | None = None) -> Path:
    """A model's folder: tokenizer, configuration, random weights in bf16."""
    import torch
    import transformers

    count = make_tokenizer(folder, family, pattern=pattern)
    tokens = json.loads((folder / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    ids = {token["content"]: int(index) for index, token in tokens.items()}
    settings = getattr(transformers, f"{family.model}Config")(
        **SIZES,
        tie_word_embeddings=True,
        vocab_size=-(-count // 64) * 64,
        bos_token_id=ids.get(family.begin or ""),
        eos_token_id=ids[family.end_of_turn],
        pad_token_id=ids[family.more[0]],
    )
    torch.manual_seed(0)
    getattr(transformers, f"{family.model}ForCausalLM")(settings).to(torch.bfloat16).save_pretrained(folder)
    return folder
