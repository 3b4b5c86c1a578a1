"""Ask what a prompt asks as one question for yes or no, for routes that have answers of their own."""

from __future__ import annotations

from looktwice.score.prompting.prompt import Prompt

QUESTIONS = {
    "object": "Does the candidate show the very object of the query, not just one that looks alike?",
    "object_yesno": "Does the candidate show the very object of the query, not just one that looks alike?",
    "landmark": "Does the candidate show the very landmark, building or architectural detail of the query?",
    "generic": "Does the candidate resemble the query?",
    "binary": "Do both show one and the same individual thing?",
    "class": "Does the candidate show an object of the same kind as the query's?",
    "met": "Does the candidate show the very artwork of the query?",
    "inat": "Does the candidate show the very species of the query?",
    "match": "Does the candidate show what the query says?",
    "match-query-first": "Does the candidate show what the query says?",
    "caption": "Does the query show what the candidate says?",
    "composed": "Does the candidate fit the query image together with the query text?",
    "composed-query-first": "Does the candidate fit the query image together with the query text?",
}
GENERAL = "Does the candidate answer the query?"


def question(prompt: Prompt) -> str:
    """Return the question of a built-in prompt, or a general one."""
    return QUESTIONS.get(prompt.name, GENERAL)
