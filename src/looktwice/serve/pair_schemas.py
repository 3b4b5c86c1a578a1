"""Define requests and answers of rerank, score and decisions in the shapes of Jina, Cohere, vLLM and OpenAI."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, Field, model_validator

from looktwice.serve.schemas import Strict


class ImageUrl(Strict):
    """An image in vLLM's and OpenAI's chat form; `url` is a data URI, or a URL if the server fetches URLs."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ContentPart(Strict):
    """A text or an image of a message."""

    type: Literal["text", "input_text", "image_url", "input_image"]
    text: str | None = None
    image_url: str | ImageUrl | None = None
    detail: Literal["auto", "low", "high"] | None = None

    @model_validator(mode="after")
    def _complete(self) -> ContentPart:
        if (self.text is None) == self.type.endswith("text") or (self.image_url is None) == ("image" in self.type):
            raise ValueError("a text part needs text, an image part image_url, and neither the other")
        return self


class DocumentBody(Strict):
    """A query or document: a text, an image, both, or a list of parts. It gets one score, however many parts it has."""

    text: str | None = None
    image: str | None = None
    content: str | list[ContentPart] | None = Field(default=None, max_length=8)


DocumentLike: TypeAlias = str | DocumentBody


class RerankRequest(Strict):
    """Documents to rank for a query."""

    model: str | None = None
    query: DocumentLike
    documents: list[DocumentLike] = Field(min_length=1)
    top_n: int | None = Field(default=None, ge=0, description="Number of results; 0 or none: all.")
    return_documents: bool = False
    instruction: str | None = Field(default=None, max_length=4000, description="What to look for; becomes query text.")
    instruct: str | None = Field(default=None, max_length=4000, description="The same as `instruction`.")
    prompt: str | None = Field(default=None, max_length=100, description="Name of a built-in prompt.")
    max_tokens_per_doc: int | None = Field(
        default=None, ge=1, description="Accepted from clients that always send it, if no document is that long."
    )
    user: str | None = None
    request_id: str | None = None
    timeout_s: float | None = Field(default=None, ge=0.5, le=3600)


class RerankResult(BaseModel):
    """One document. A document without a score comes last, with null and the reason."""

    index: int
    relevance_score: float | None
    document: dict[str, Any] | None = None
    error: str | None = None


class PairUsage(BaseModel):
    """What a request cost."""

    pairs: int


class RerankResponse(BaseModel):
    """Documents, best first."""

    id: str
    object: Literal["list"] = "list"
    model: str
    results: list[RerankResult]
    usage: PairUsage
    meta: dict[str, Any]


class ScoreRequest(Strict):
    """Two sides to compare: one with one, one with many, or pair by pair."""

    model: str | None = None
    queries: DocumentLike | list[DocumentLike] | None = None
    documents: DocumentLike | list[DocumentLike] | None = None
    items: DocumentLike | list[DocumentLike] | None = None
    data_1: DocumentLike | list[DocumentLike] | None = None
    data_2: DocumentLike | list[DocumentLike] | None = None
    text_1: DocumentLike | list[DocumentLike] | None = None
    text_2: DocumentLike | list[DocumentLike] | None = None
    prompt: str | None = Field(default=None, max_length=100)
    user: str | None = None
    timeout_s: float | None = Field(default=None, ge=0.5, le=3600)

    def sides(self) -> tuple[list[DocumentLike], list[DocumentLike]]:
        """Return both sides as lists. Raises ValueError unless one name is given for each."""
        left = [side for side in (self.queries, self.data_1, self.text_1) if side is not None]
        right = [side for side in (self.documents, self.items, self.data_2, self.text_2) if side is not None]
        if len(left) != 1 or len(right) != 1:
            raise ValueError("give queries and documents, or data_1 and data_2, or text_1 and text_2")
        one, other = (side if isinstance(side, list) else [side] for side in (left[0], right[0]))
        return one, other


class ScoreRow(BaseModel):
    """The score of one pair, or null and the reason."""

    index: int
    object: Literal["score"] = "score"
    score: float | None
    error: str | None = None


class ScoreResponse(BaseModel):
    """Scores in the order of the pairs."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[ScoreRow]
    usage: PairUsage


class Message(Strict):
    """A user's message with shared evidence."""

    role: Literal["user"] = "user"
    type: Literal["message"] | None = None
    content: str | list[ContentPart]


class PredicateQuestion(Strict):
    """A yes-or-no question; its instructions may hold an image of its own."""

    type: Literal["predicate"] = "predicate"
    name: str = Field(min_length=1, max_length=200)
    instructions: str | list[ContentPart]


class DecisionRequest(Strict):
    """Questions about shared evidence."""

    model: str | None = None
    input: str | list[Message]
    questions: list[PredicateQuestion] = Field(min_length=1, max_length=400)
    user: str | None = None
    timeout_s: float | None = Field(default=None, ge=0.5, le=3600)


class DecisionAnswer(BaseModel):
    """P(yes) among yes and no; `label_mass` is the probability of both together, `off_mass` that of all else."""

    type: Literal["predicate"] = "predicate"
    name: str
    probability: float | None
    label_mass: float | None
    off_mass: float | None
    error: str | None = None


class DecisionResponse(BaseModel):
    """One answer per question, in order."""

    id: str
    object: Literal["decision"] = "decision"
    model: str
    answers: list[DecisionAnswer]
    usage: PairUsage
