"""A little language model with random weights, and its tokenizer: where the experiment begins.

A GPT-2 of one or two layers with less than a million parameters. Dropout on everything it reads is what keeps so small
a model, with so few examples, from learning them by heart.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MARKERS = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|unknown|>"]


def make(
    folder: Path, texts: Iterable[str], *, seed: int, width: int, layers: int, dropout: float, whole_words: bool
) -> None:
    """Write an untrained model.

    Args:
        folder: Where to.
        texts: What the tokenizer learns its pieces from: prompts of the training part and replies.
        seed: Of the weights.
        width: Numbers that stand for a word, a multiple of 4; a narrower model is faster.
        layers: With a second one it can see what words stand together, for more time.
        dropout: Share of what a layer gives on that is left out in training, 0 to 1.
        whole_words: Words that occur twice in the texts, all others alike, instead of pieces of words: better where
            the texts are many.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel(unk_token=MARKERS[-1]) if whole_words else models.BPE())
    core.normalizer = normalizers.Lowercase()  # a word is one word, wherever it stands
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    core.decoder = decoders.ByteLevel()
    common = {"special_tokens": MARKERS, "show_progress": False}
    trainer = (
        trainers.WordLevelTrainer(min_frequency=2, **common)
        if whole_words
        else trainers.BpeTrainer(vocab_size=1500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **common)
    )
    core.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=MARKERS[0],
        eos_token=MARKERS[1],
        additional_special_tokens=MARKERS[2:],
        unk_token=MARKERS[-1],
        model_max_length=256,
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_embd=width,
            n_inner=2 * width,
            n_layer=layers,
            n_head=4,
            n_positions=256,
            embd_pdrop=dropout,
            resid_pdrop=dropout,
            attn_pdrop=dropout,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
