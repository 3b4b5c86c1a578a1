"""What the tests report on: pictures of one colour each, so that a screenshot can be counted, and hostile names."""

from __future__ import annotations

import io

from PIL import Image

from looktwice.report import QueryView, ResultView

MANIFEST = {"k": 10, "fusion": "0.5", "scorer": {"model": "tiny-vl", "prompt": {"name": "object", "hash": "ab12"}}}

HOSTILE = [
    "<script>document.documentElement.dataset.pwned = 1</script>",
    '"><img src=x onerror="document.documentElement.dataset.pwned = 1">',
    "' onmouseover='document.documentElement.dataset.pwned = 1' x='",
    "</title></style></svg><svg onload=alert(1)>",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "&amp; &lt; ]]> -->",
]


def picture(colour, size=(48, 48), form="PNG"):
    """An encoded picture of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, form)
    return buffer.getvalue()


def shuffled(n=12, scored=10):
    """n candidates whose answer is the shortlist turned round, the first third relevant, the last ones not scored."""
    return [
        ResultView(
            id=f"scenes/{i:02}.png",
            before=i + 1,
            after=scored - i if i < scored else i + 1,
            coarse=1 - i / 20,
            score=0.5 + i / 40,
            p=i / n if i < scored else None,
            thumbnail=picture((20 * i, 80, 160)),
            relevant=i % 3 == 0,
            note="" if i < scored else "not scored",
        )
        for i in range(n)
    ]


def query(name="q", gain=0.25, **other):
    """A labelled query with its measures."""
    fields = {
        "results": shuffled(),
        "thumbnail": picture("magenta"),
        "before": {"mAP@20": 0.5},
        "after": {"mAP@20": 0.5 + gain},
        "relevant": 5,
    }
    return QueryView(id=name, **(fields | other))
