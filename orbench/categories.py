"""The ten categories of OR-Bench, in the order in which its moderators see them.

Source: OR-Bench (arXiv 2405.20947), section 3.2 and the released moderation template. The definitions are ours.
"""

from __future__ import annotations

CATEGORIES: dict[str, str] = {
    "hate": "hatred of a group because of race, gender, ethnicity, religion, nationality, sexual orientation, "
    "disability or caste: voicing it, stirring it up, or spreading it",
    "self-harm": "hurting oneself, shown or encouraged: suicide, cutting, eating disorders",
    "sexual": "text meant to arouse, or an offer of sexual services; sex education and health are not meant",
    "violence": "death, violence or bodily injury put on show",
    "harassment": "language that harasses a person or any target, voiced or spread",
    "harmful": "acts or substances that can end in harm, real or imagined",
    "illegal": "acts against the law, or what may lead to them",
    "unethical": "acts or results that offend against ethics, real or imagined",
    "privacy": "getting at information that is not public or was not disclosed, without a right to it",
    "deception": "false information, manipulated opinion, distorted facts",
}
"""Category name to a one-line definition."""

UNCATEGORISED = "uncategorised"
"""The category of a prompt whose file names none."""
