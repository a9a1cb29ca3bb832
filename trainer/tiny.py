"""The base model of the preset `tiny`: a Gemma-2 of four million parameters, made on the spot.

    make(folder)              all of it: tokenizer, configuration, weights (imports torch)
    make_tokenizer(folder)    tokenizer and configuration only, for plans and data checks (no torch)

The folder looks like one from the hub: `config.json`, `model.safetensors` (bf16), `tokenizer.model` (sentencepiece),
`tokenizer.json`, `tokenizer_config.json` with `added_tokens_decoder` and a chat template. The weights are random
draws of `seed`, so the model knows nothing yet; the tokenizer is trained on the example chats that ship here. The
same seed gives the same bytes.
"""

from __future__ import annotations

import json
from pathlib import Path

from .data import EXAMPLES

VOCABULARY = 1024
SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "\n")
"""Ids 0 to 6. The line feed is a piece of its own as in Gemma, but no special token."""

CONFIG = {
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "query_pre_attn_scalar": 64,
    "sliding_window": 256,
    "max_position_embeddings": 4096,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
    "dtype": "bfloat16",
}

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
"""Gemma-2's turns: no system role, roles alternate, the assistant is called `model`."""


def make(folder: Path, seed: int = 0, **sizes: int) -> Path:
    """Make the whole base model in `folder` (created; a finished one is kept) and return the folder.

    `sizes` replaces entries of CONFIG, such as num_hidden_layers.
    """
    make_tokenizer(folder, **sizes)
    if not (folder / "model.safetensors").exists():
        _make_weights(folder, seed)
    return folder


def make_tokenizer(folder: Path, **sizes: int) -> Path:
    """Make tokenizer and configuration in `folder` (created; a finished one is kept) and return the folder."""
    if (folder / "config.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    _train_pieces(folder, _corpus())
    _write_fast_tokenizer(folder)
    added = {
        str(i): {
            "content": piece,
            "special": piece != "\n",
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "single_word": False,
        }
        for i, piece in enumerate(SPECIAL)
    }
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "GemmaTokenizer",
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
            "add_bos_token": True,
            "add_eos_token": False,
            "additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"],
            "added_tokens_decoder": added,
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
        },
    )
    _write_json(folder / "generation_config.json", {"bos_token_id": 2, "eos_token_id": [1, 5], "pad_token_id": 0})
    _write_json(folder / "config.json", CONFIG | sizes)  # last: it marks the tokenizer as finished
    return folder


def _corpus() -> list[str]:
    rows = [json.loads(line) for line in EXAMPLES.read_text().splitlines()]
    return [m["content"] for row in rows for m in row["messages"]] + ["user model system assistant"] * 20


def _train_pieces(folder: Path, corpus: list[str]) -> None:
    import io

    import sentencepiece

    model = io.BytesIO()  # a file name would be written into the model and change its bytes
    sentencepiece.SentencePieceTrainer.train(  # type: ignore[attr-defined]
        sentence_iterator=iter(corpus),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCABULARY,
        hard_vocab_limit=False,
        byte_fallback=True,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        unk_piece="<unk>",
        user_defined_symbols=list(SPECIAL[4:]),
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        split_digits=True,
        character_coverage=1.0,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())


def _write_fast_tokenizer(folder: Path) -> None:
    """Say the sentencepiece model once more in the `tokenizers` format, which is what training reads."""
    import sentencepiece
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    vocabulary = {pieces.id_to_piece(i): i for i in range(pieces.get_piece_size())}
    learned = [
        pieces.id_to_piece(i)
        for i in range(len(SPECIAL), pieces.get_piece_size())
        if not pieces.is_byte(i) and len(pieces.id_to_piece(i)) > 1
    ]
    # Sentencepiece joins the pair whose result ranks first, however it is cut: each cut of a piece is a merge.
    merges = [
        (piece[:cut], piece[cut:])
        for piece in sorted(learned, key=lambda p: vocabulary[p])
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)  # noqa: S106
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 2)]
    )
    tokenizer.add_special_tokens([AddedToken(p, special=True, normalized=False) for p in SPECIAL if p != "\n"])
    tokenizer.add_tokens([AddedToken("\n", special=False, normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))


def _make_weights(folder: Path, seed: int) -> None:
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config.from_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Gemma2ForCausalLM(config)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    kept = (folder / "config.json").read_bytes()
    model.save_pretrained(folder)
    (folder / "config.json").write_bytes(kept)  # as written here, not as this version of transformers says it


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
