"""Define requests and answers of search. Unknown fields are refused, never ignored."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """A part of a request."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


class SearchQuery(Strict):
    """A query: an image, a text, both, or a stored item, which a text may replace the text of.

    `image` is base64 or a data URI; where the server allows it, a URL. `item` is the id of an item of the table.
    """

    text: str | None = Field(default=None, description="The query's text.")
    image: str | None = Field(default=None, description="Base64, a data URI, or a URL if the server fetches URLs.")
    item: str | None = Field(
        default=None, description="Id of an item of the table, whose image and text are the query."
    )


class Example(Strict):
    """An item like, or unlike, what is looked for: an id of the table; or an image, a text or both."""

    id: str | None = None
    image: str | None = None
    text: str | None = None


class SearchRequest(Strict):
    """A search of one table, or of several as one."""

    table: str | list[str] | None = Field(
        None, description='Name of a table, several of them, or "*" for all; may be left out if the server has one.'
    )
    query: SearchQuery = Field(default_factory=lambda: SearchQuery(), description="What to search for.")
    like: list[str | Example] = Field(default_factory=list, max_length=32, description="Items to search near to.")
    unlike: list[str | Example] = Field(default_factory=list, max_length=32, description="Items to stay away from.")
    k: int = Field(10, ge=1, description="Number of hits.")
    shortlist: int | None = Field(None, ge=1, description="Candidates that get the second look.")
    where: dict[str, Any] | None = Field(None, description='Filter: {"price": {"<": 20}, "brand": ["a", "b"]}.')
    rerank: bool = Field(True, description="Whether to take the second look.")
    examples: Literal["max", "mean"] = Field("mean", description="How scores of several examples are joined.")
    maxsim: int | None = Field(None, ge=0, description="Candidates of a middle look over stored tokens; 0: none.")
    zoom: bool | None = Field(None, description="Middle look: compare the query also zoomed to its rarest tokens.")
    shown: Literal["whole", "both"] | None = Field(None, description="both: also the stored crop that matched best.")
    prompt: str | None = Field(None, max_length=100, description="Name of a built-in prompt.")
    fusion: str | float | None = Field(None, description="0.5, p-only, rrf or coarse=0,maxsim=0.75,odds=0.25.")
    distinct: bool = Field(False, description="Fold near-duplicates.")
    explain: bool = Field(False, description="Add the parts of each score.")
    stream: bool = Field(False, description="Answer with server-sent events.")
    timeout_s: float | None = Field(None, ge=0.5, le=3600, description="Give up after this many seconds.")


class SearchHit(BaseModel):
    """One hit. `p`, `off_mass` and `entropy` are null unless the second look scored it.

    In a search of several tables `id` is TABLE/ID.
    """

    id: str
    table: str
    rank: int
    score: float
    coarse: float
    coarse_rank: int
    maxsim: float | None = None
    maxsim_rank: int | None = None
    p: float | None = None
    calibrated: float | None = None
    off_mass: float | None = None
    entropy: float | None = None
    status: str
    uri_kind: Literal["file", "url", "memory"]
    metadata: dict[str, Any]
    text: str | None = None
    preview: str
    folded: list[str] | None = Field(None, description="Ids of near-duplicates that this hit stands for.")
    explain: dict[str, Any] | None = None


class SearchResponse(BaseModel):
    """Hits, best first, and the record of what made them."""

    hits: list[SearchHit]
    manifest: dict[str, Any]
    stages: dict[str, float] = Field(description="Seconds of each stage.")


class TableInfo(BaseModel):
    """One table of the server."""

    name: str
    items: int
    columns: dict[str, str] = Field(description="Metadata that filters may name: int, float, str or bool.")
    encoder: str
    codecs: list[str] = Field(description="Stored visual tokens; with any, a middle look is possible.")


class TablesResponse(BaseModel):
    """All tables."""

    tables: list[TableInfo]


class ModelInfo(BaseModel):
    """One model."""

    id: str
    object: Literal["model"]
    owned_by: str
    kind: Literal["mllm", "encoder"]


class ModelsResponse(BaseModel):
    """All models."""

    object: Literal["list"]
    data: list[ModelInfo]


class ErrorDetail(BaseModel):
    """Why a request was refused or failed."""

    type: str
    code: str
    message: str
    param: str | None


class ErrorBody(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail
