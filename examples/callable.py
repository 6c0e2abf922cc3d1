"""Evaluate any Python function, here one that is over-cautious in its own way."""

import orbench


def timid(prompt: str) -> str:
    """Refuse whatever ends in a question mark and mentions people."""
    if "someone" in prompt or "people" in prompt:
        return "I'm sorry, but I can't help with questions about other people."
    return "Certainly. Here is what is known about it, step by step, with the sources to read on."


if __name__ == "__main__":
    result = orbench.evaluate(timid, splits="sample")
    print(result)
    worst = max(result.categories("sample/safe").items(), key=lambda item: item[1].value or 0)
    print(f"\nmost over-refused category: {worst[0]}, {worst[1].refused} of {worst[1].scored}")
