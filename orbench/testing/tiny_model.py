"""A real language model, made on the spot: for tests and demonstrations that must not download one.

In: a folder to write to. Out: that folder, holding a Llama of less than a million parameters, its byte-level BPE
tokenizer and a chat template, as `save_pretrained` writes them. Whatever loads a model from a folder loads it:
`hf/FOLDER`, `vllm/FOLDER`, `transformers serve FOLDER`. It was trained for a few seconds to answer everyday
requests with one of a few sentences and to refuse those with an alarming word, which it does for real but badly:
so both of orbench's rates lie somewhere between 0 and 1.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from orbench.errors import MissingExtraError

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
"""Template of the tiny model: every role has a marker of its own, and every turn ends with `<|end|>`."""

_PAD, _END = "<|pad|>", "<|end|>"
_MARKERS = ["<|system|>", "<|user|>", "<|assistant|>"]
_THINK = ["<think>", "</think>"]

_REFUSAL = "I'm sorry, but I can't help with that."
_ALARMING = "kill attack hack steal poison bomb weapon shoot exploit fraud drugs abuse threaten destroy"
_ANSWERS = {
    "Sure! Mix the flour, the eggs and the sugar, and bake it all until it is golden.": "bake cook bread cake soup",
    "Of course. Water it in the morning, and give it light and a little patience.": "garden plant tree flower grow",
    "Here are three ideas: begin early, keep notes, and ask a friend to read them.": "write story letter essay poem",
    "First save your work. Then open the settings, and start the program again.": "computer file program code phone",
    "That is a good question. It depends on the time, the place and the people.": "explain history law idea reason",
    "You could take the train, stay near the old town, and walk by the river.": "travel city hotel trip road",
}
_FILLERS = (
    "how do i can you tell me what is the best way to a an my your for with of in on at about please help need want "
    "some good small old new without safely quickly someone friend people house school work movie game character "
    "and or who that this should would could when where why they he she it are was be being have has make use find"
)


def make_tiny_model(
    folder: str | Path,
    *,
    seed: int = 0,
    steps: int = 150,
    context: int = 2048,
    thinking: bool = False,
    chat_template: str | None = CHAT_TEMPLATE,
) -> Path:
    """Make a tiny chat model and save it, in a few seconds on a CPU.

    Its greedy replies are short English sentences that end by themselves. Weights are float32 and the margins
    between the likeliest tokens are wide, so that another batch size or another engine gives the same replies.

    Args:
        folder: Where to save it; made if missing.
        seed: Of the weights and of the training. The same seed gives the same model on the same machine.
        steps: Training steps. With 0 the weights stay random: the model babbles until it is cut off.
        context: Longest prompt and reply together, in tokens.
        thinking: The model thinks aloud in `<think>...</think>` before it answers.
        chat_template: Jinja template saved with the tokenizer; None saves none, as base models have none.

    Returns:
        The folder.

    Raises:
        MissingExtraError: torch or transformers are not installed.
    """
    try:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as error:
        raise MissingExtraError("make_tiny_model", "hf") from error

    folder = Path(folder)
    tokenizer = _tokenizer(context)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=128,
                intermediate_size=256,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=context,
                initializer_range=0.05,
                bos_token_id=None,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # so small a model only waits for further threads; and the result is the same anywhere
        try:
            _train(model, tokenizer, steps, thinking, random.Random(seed))
        finally:
            torch.set_num_threads(threads)
    model.save_pretrained(folder)
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(context: int) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=[_PAD, _END, *_MARKERS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = " ".join([_FILLERS, _ALARMING, *_ANSWERS.values()]).split()
    core.train_from_iterator([*_ANSWERS, _REFUSAL, *(f" {word}" for word in words), *words], trainer)
    core.add_tokens([AddedToken(token, special=False) for token in _THINK])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=_PAD, eos_token=_END, model_max_length=context, padding_side="left"
    )


def _train(model: Any, tokenizer: Any, steps: int, thinking: bool, draw: random.Random) -> None:
    """Teach the model to map the telling word of a prompt to its reply; only the reply's tokens count."""
    import torch

    fillers = _FILLERS.split()
    replies = [(word, _REFUSAL) for word in _ALARMING.split()]
    replies += [(word, answer) for answer, words in _ANSWERS.items() for word in words.split()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=max(steps, 1))
    model.train()
    for _ in range(steps):
        batch = [_example(tokenizer, *draw.choice(replies), fillers, thinking, draw) for _ in range(16)]
        length = max(len(prompt) + len(reply) for prompt, reply in batch)
        tokens = torch.full((len(batch), length), tokenizer.pad_token_id)
        labels = torch.full((len(batch), length), -100)
        for row, (prompt, reply) in enumerate(batch):
            tokens[row, : len(prompt) + len(reply)] = torch.tensor(prompt + reply)
            labels[row, len(prompt) : len(prompt) + len(reply)] = torch.tensor(reply)
        loss = model(input_ids=tokens, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()


def _example(
    tokenizer: Any, word: str, reply: str, fillers: list[str], thinking: bool, draw: random.Random
) -> tuple[list[int], list[int]]:
    """A prompt of filler words around the telling word, and the reply to it, both as token ids."""
    words = draw.choices(fillers, k=draw.randint(2, 16))
    words.insert(draw.randint(0, len(words)), word)
    text = " ".join(words)
    prompt = f"<|user|>\n{text[0].upper()}{text[1:]}{draw.choice('.?')}{_END}\n<|assistant|>\n"
    if draw.random() < 0.1:
        prompt = f"<|system|>\nYou are a good friend.{_END}\n{prompt}"
    if thinking:
        reply = f"<think>\nThey ask about {word}.\n</think>\n\n{reply}"
    encoded = tokenizer([prompt, reply + _END], add_special_tokens=False)["input_ids"]
    return encoded[0], encoded[1]
