"""Score the pairs given in a request, without a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from looktwice.score.prompting import built_in
from looktwice.score.prompting.prompt import Prompt, Segment
from looktwice.score.readout.probability import scatter
from looktwice.search.run_record import RunStats
from looktwice.serve.media import Media
from looktwice.serve.pair_schemas import ContentPart, DocumentBody, DocumentLike
from looktwice.serve.problems import Problem
from looktwice.serve.request_images import RequestItem, RequestLoader, RequestLoaders, decoded
from looktwice.serve.scorers import QueuedReranker
from looktwice.serve.tables import prompted
from looktwice.types import Item, PairScores

DECISION = Prompt(
    "decision",
    (
        Segment(part="query.image", optional=True),
        Segment(part="query.text", before="Evidence: <", after=">\n", optional=True),
        Segment(part="candidate.image", optional=True),
        Segment(part="candidate.text", before="Question: <", after=">\n"),
        Segment(text="Answer with one word only: Yes or No."),
    ),
    built_in.YES_NO,
)
"""Shows shared evidence first, so that its work is done once, then one question with an image of its own."""


def read_document(media: Media, given: DocumentLike, param: str) -> RequestItem:
    """Return a query or document; `param` names it, and the part of it that cannot be read.

    A text that is a data URI is an image. Raises Problem.
    """
    if isinstance(given, str):
        is_image = given[:11].lower() == "data:image/"
        return media.later(param, given if is_image else None, None if is_image else given, param)
    if given.content is None:
        return media.later(param, given.image, given.text, f"{param}.image" if given.image is not None else param)
    if given.text is not None or given.image is not None:
        raise Problem(422, "two_forms", "content excludes text and image.", param)
    found = read_parts(media, given.content, f"{param}.content")
    if len(found) > 1:
        raise Problem(422, "too_many_images", "A query or document may have one image.", f"{param}.content")
    return found[0]


def read_parts(media: Media, content: str | Sequence[ContentPart], param: str) -> list[RequestItem]:
    """Return one item per image of a message, or one without an image; the first holds all texts."""
    if isinstance(content, str):
        return [media.later(param, None, content, param)]
    texts = "\n".join(part.text for part in content if part.text is not None)
    addresses = [(number, _address(part)) for number, part in enumerate(content) if part.image_url is not None]
    items = [media.later(param, address, None, f"{param}.{number}") for number, address in addresses]
    if not items:
        return [media.later(param, None, texts, param)]
    text = media.text(texts, param) if texts.strip() else None
    return [replace(items[0], text=text), *items[1:]]


def with_instruction(query: RequestItem, instruction: str | None) -> RequestItem:
    """Return a query whose text begins with an instruction."""
    if not instruction or not instruction.strip():
        return query
    return replace(query, text=f"{instruction}\n{query.text}" if query.text else instruction)


def score_documents(
    reranker: QueuedReranker, query: RequestItem, documents: Sequence[RequestItem], prompt: str | None
) -> PairScores | None:
    """Score documents against a query, as `looktwice.Reranker` does."""
    asking = prompted(reranker, prompt)
    reranker.queue.sit()
    return asking.score(decoded(query), documents, RequestLoaders(), RunStats())


def score_questions(reranker: QueuedReranker, evidence: RequestItem, questions: Sequence[RequestItem]) -> PairScores:
    """Ask yes-or-no questions about shared evidence."""
    scorer = reranker.scorer("mixed").with_prompt(DECISION)
    reranker.queue.sit()
    shared, done = decoded(evidence), 0
    parts: list[tuple[Sequence[int], PairScores]] = []
    for chunk in RequestLoader(0).load(questions):
        asked = [one for one in chunk if isinstance(one, Item)]
        parts.append((range(done, done + len(asked)), scorer.score(shared, asked)))
        done += len(asked)
    return scatter(done, parts[0][1].label_logits.shape[1], parts, "missing")


def _address(part: ContentPart) -> str:
    where = part.image_url
    return where if isinstance(where, str) else "" if where is None else where.url


def as_given(document: DocumentLike) -> dict[str, Any]:
    """Return a document in the form in which it was given; a text as {"text"}."""
    if isinstance(document, DocumentBody):
        return document.model_dump(exclude_none=True)
    return {"text": document}
