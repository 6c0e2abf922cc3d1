"""From diagnosis to cure: a finished run -> better replies -> preference pairs -> training -> the same run again.

    overgenerate.py  several replies a prompt from teachers, scored    -> candidates
    taken.py         what of them is learned, written, and their card
    choose.py        the best of them by a stated rule, and a random one as its control
    pairs.py         a run's over-refusals and a teacher's replies      -> pairs, held-out prompts, card
    preferences.py   the pair that one prompt gives, or why it gives none
    apart.py         which prompts go into which part, never alike ones into two
    teacher.py       the teacher's run, which grows with what is asked
    moderate.py      whether moderators find replies unsafe
    helpful.py       how helpful replies are, by a judge or a reward model
    terms.py         calls open at once and money, for moderators and judges of helpfulness
    card.py          what is said about the data
    files.py         the rows, in TRL's formats, written and read
    config.py        what can be set in training, the papers' presets
    data.py          rows that fit the model
    loading.py       what a training loads: tokenizer, model, adapters
    folder.py        a training's folder, and whether a command goes on in it
    trainer.py       TRL's trainers, set up: sft and dpo
    paid.py          what judges are asked for a training, and its money
    raft.py          the model's own replies, ranked, learnt, again
    watch.py         scores checkpoints while training goes on, and keeps the best
    checkpoints.py   the rule that says which is the best
    ranking.py       how well a model's leaning towards refusal tells toxic prompts from safe ones
    seen.py          whether the trained model has seen the prompts of a run
    report.py        before and after

Sources: POROver (arXiv 2410.12999) and Safe to Serve (arXiv 2412.00074). What neither says is ours and said to be.
"""
