"""Product quantisation and int8: agreement with FAISS, error bounds, codebooks that are kept, shared and refused."""

import hashlib
import json
import math

import faiss
import numpy as np
import pytest
import torch
from safetensors.torch import save

from looktwice.codecs import Codebook, codebook_from_bytes, load_codebook, parse_codec, train_codebook
from looktwice.codecs.int8 import Int8
from looktwice.codecs.pq import PQ, nearest_centroids, pack_codes, unpack_codes
from looktwice.errors import Mismatch, StoreError, UsageError

torch.set_num_threads(1)
faiss.omp_set_num_threads(1)


def clumpy(count: int, dim: int, seed: int = 0) -> torch.Tensor:
    """Tokens with some structure to learn: 20 clumps and noise. Shape [count, dim]."""
    torch.manual_seed(seed)
    return torch.randn(20, dim)[torch.randint(0, 20, (count,))] + 0.3 * torch.randn(count, dim)


@pytest.mark.parametrize(
    ("spec", "dim", "bytes_each"),
    [("pq8", 64, 8), ("pq16", 64, 4), ("pq:4x5", 48, 3), ("pq8x12", 16, 3), ("pq4x3", 8, 1), ("opq8x4", 32, 2)],
)
def test_codes_and_vectors_are_those_of_faiss(spec: str, dim: int, bytes_each: int) -> None:
    quantiser = parse_codec(spec).quantiser
    rows = clumpy(4200 if "x12" in spec else 600, dim)
    book = train_codebook(quantiser, rows[None])
    codes = quantiser.encode(rows[:50], book, 0)
    assert codes.shape == (50, bytes_each) == (50, quantiser.row_bytes(dim, 4))
    decoded = quantiser.decode(codes, torch.float32, torch.float32, book, 0)
    wanted = torch.from_numpy(book.quantiser(0).decode(codes.numpy()))
    torch.testing.assert_close(decoded, book.rotate_back(wanted, 0))
    assert (decoded - rows[:50]).square().mean() < rows.var() / 2


@pytest.mark.parametrize("bits", [2, 5, 8, 11])
def test_the_encoder_for_accelerators_gives_the_codes_of_faiss(bits: int) -> None:
    rows = clumpy(2100, 24)
    book = train_codebook(PQ(8, bits=bits), rows[None])
    index = nearest_centroids(rows, book.centroids[0])
    assert (unpack_codes(pack_codes(index, bits), 3, bits) == index).all()
    agree = (pack_codes(index, bits) == PQ(8, bits=bits).encode(rows, book, 0)).float().mean()
    assert agree > 0.999  # a tie may fall either way


def test_the_released_shape() -> None:
    """Width 3,584 in 448 sub-vectors of 8: pq8 and pq:448 are the same bytes."""
    rows = clumpy(80, 3584)
    book = train_codebook(PQ(8, bits=4), rows[None])
    by_number = Codebook("pq:448x4", book.centroids)
    codes = PQ(8, bits=4).encode(rows, book, 0)
    assert codes.shape == (80, 224)
    assert PQ(None, 448, 4).encode(rows, by_number, 0).equal(codes)
    decoded = PQ(8, bits=4).decode(codes, torch.float32, torch.bfloat16, book, 0)
    assert decoded.dtype == torch.bfloat16 and decoded.shape == (80, 3584)
    assert (decoded.float() - rows).square().mean() < rows.var() / 2


def test_smaller_sub_vectors_and_rotation_help() -> None:
    """Correlated dimensions: what OPQ is for."""
    torch.manual_seed(2)
    mix = torch.randn(4, 32)
    rows = torch.randn(1500, 4) @ mix + 0.05 * torch.randn(1500, 32)
    error = {}
    for spec in ("pq16x4", "pq8x4", "opq8x4"):
        quantiser = parse_codec(spec).quantiser
        book = train_codebook(quantiser, rows[None])
        decoded = quantiser.decode(quantiser.encode(rows, book, 0), torch.float32, torch.float32, book, 0)
        error[spec] = float((decoded - rows).square().mean())
    assert error["opq8x4"] < error["pq8x4"] < error["pq16x4"]


def test_a_rotation_gives_every_sub_vector_its_share_of_the_energy() -> None:
    """A random start leaves three times this error on such tokens: FAISS's OPQ 0.057, plain pq8x6 0.25."""
    torch.manual_seed(0)
    turn = torch.linalg.qr(torch.randn(64, 64))[0]
    rows = (torch.randn(2000, 64) * torch.exp(-torch.arange(64) / 6.0)) @ turn
    quantiser = PQ(8, bits=6, rotated=True)
    book = train_codebook(quantiser, rows[None])
    decoded = quantiser.decode(quantiser.encode(rows, book, 0), torch.float32, torch.float32, book, 0)
    assert (decoded - rows).square().sum() < 0.02 * rows.square().sum()
    energy = book.rotate(rows, 0).square().mean(0).view(8, 8).log().sum(1)
    assert energy.max() - energy.min() < 0.2 * energy.mean().abs(), "products of energies, nearly equal"
    assert train_codebook(quantiser, torch.zeros(1, 64, 64)).centroids.isfinite().all()


def test_training_is_repeatable_and_the_seed_matters() -> None:
    sample = clumpy(300, 16)[None]
    books = [train_codebook(PQ(4, bits=4), sample, seed=seed) for seed in (5, 5, 6)]
    assert books[0] == books[1] != books[2]
    assert books[0].trained == {"tokens": 300, "seed": 5}


def test_every_stream_has_its_own_codebook() -> None:
    sample = torch.stack([clumpy(300, 16), 100 * clumpy(300, 16, seed=1)])
    book = train_codebook(PQ(4, bits=4), sample)
    assert book.streams == 2
    for stream in range(2):
        codes = PQ(4, bits=4).encode(sample[stream], book, stream)
        decoded = PQ(4, bits=4).decode(codes, torch.float32, torch.float32, book, stream)
        assert (decoded - sample[stream]).square().mean() < sample[stream].var() / 2


def test_too_few_tokens_are_refused_in_words() -> None:
    with pytest.raises(UsageError, match="255 tokens are too few to train on; pq16 needs 256"):
        train_codebook(PQ(16), torch.randn(1, 255, 16))


@pytest.mark.parametrize("spec", ["pq4x4", "opq4x4"])
def test_a_codebook_comes_back_from_disk(tmp_path, spec: str) -> None:
    book = train_codebook(parse_codec(spec).quantiser, clumpy(200, 8)[None], seed=3)
    (tmp_path / "book").write_bytes(book.to_bytes())
    loaded = load_codebook(tmp_path / "book")
    assert loaded == book and loaded.trained == book.trained and loaded.centroids.equal(book.centroids)
    assert loaded.to_bytes() == book.to_bytes() and hashlib.sha256(book.to_bytes()).hexdigest() == book.sha256


def forged(about: object, **change: torch.Tensor) -> bytes:
    book = train_codebook(parse_codec("opq4x4").quantiser, clumpy(200, 8)[None])
    tensors = {"centroids": book.centroids, "rotations": book.rotations} | change
    return save(tensors, metadata={"looktwice.codebook": about if isinstance(about, str) else json.dumps(about)})


ABOUT = {"format": 1, "quantiser": "opq4x4", "trained": {}}


@pytest.mark.parametrize(
    ("about", "change"),
    [
        ("[" * 10**5, {}),
        ("7", {}),
        ({"format": 1}, {}),
        ({**ABOUT, "quantiser": 7}, {}),
        ({**ABOUT, "trained": [7]}, {}),
        ({**ABOUT, "format": "1"}, {}),
        (ABOUT, {"centroids": torch.zeros(1, 2, 16)}),
        (ABOUT, {"centroids": torch.zeros(1, 0, 16, 4)}),
        (ABOUT, {"centroids": torch.full((1, 2, 16, 4), math.nan)}),
        (ABOUT, {"rotations": torch.full((1, 8, 8), math.inf)}),
        (ABOUT, {"rotations": torch.ones(1, 8, 8, dtype=torch.int32)}),
        (ABOUT, {"rotations": torch.ones(1, 4, 4)}),
    ],
)
def test_forged_codebooks_are_refused(about: object, change: dict[str, torch.Tensor]) -> None:
    assert codebook_from_bytes(forged(ABOUT)).dim == 8
    with pytest.raises(StoreError, match="not a valid codebook"):
        codebook_from_bytes(forged(about, **change))


@pytest.mark.parametrize("shape", [(1, 1, 16, 8), (1, 2, 8, 4)])
def test_a_codebook_that_is_not_what_its_name_says_is_no_match(shape: tuple[int, ...]) -> None:
    with pytest.raises(Mismatch, match="not have the shape that opq4x4 needs"):
        PQ(4, bits=4, rotated=True).check(codebook_from_bytes(forged(ABOUT, centroids=torch.zeros(shape))), 8, 1)
    with pytest.raises(Mismatch, match="not have the shape that pq4x4 needs"):
        PQ(4, bits=4).check(codebook_from_bytes(forged({**ABOUT, "quantiser": "pq4x4"})), 8, 1)


def test_damaged_and_foreign_codebooks_are_refused(tmp_path) -> None:
    book = train_codebook(PQ(4, bits=4), clumpy(200, 8)[None])
    whole = book.to_bytes()
    with pytest.raises(UsageError, match=r"codebook .* cannot be read"):
        load_codebook(tmp_path / "none")
    later = whole.replace(b'format\\": 1', b'format\\": 9')
    assert later != whole
    for broken in (b"", whole[:40], whole[:-3], b"\xff" * 100, later, whole.replace(b"centroids", b"centrxids")):
        (tmp_path / "b").write_bytes(broken)
        with pytest.raises(StoreError, match="not a valid codebook"):
            load_codebook(tmp_path / "b")
    assert codebook_from_bytes(whole[:-1] + bytes([whole[-1] ^ 1])) != book
    with pytest.raises(Mismatch, match="trained for pq4x4, not for pq8x4"):
        parse_codec("pq8x4").with_codebook(book)
    with pytest.raises(Mismatch, match="width 8 with 0 further levels, but the model gives width 8 with 2"):
        PQ(4, bits=4).check(book, 8, 3)
    with pytest.raises(UsageError, match="uses no codebook"):
        parse_codec("int8").with_codebook(book)


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e6])
def test_int8_is_within_half_a_step(size: float) -> None:
    rows = size * torch.randn(40, 64)
    rows[3] = 0
    decoded = Int8().decode(Int8().encode(rows, None, 0), torch.float32, torch.float32, None, 0)
    assert ((decoded - rows).abs() <= rows.abs().amax(1, keepdim=True) / 253).all()
    assert not decoded[3].any()


def test_faiss_packs_bits_the_way_we_do() -> None:
    torch.manual_seed(0)
    index = torch.randint(0, 32, (7, 5), dtype=torch.int32)
    packed = pack_codes(index, 5).numpy()
    quantiser = faiss.ProductQuantizer(10, 5, 5)
    faiss.copy_array_to_vector(np.arange(5 * 32 * 2, dtype=np.float32), quantiser.centroids)
    wanted = quantiser.decode(packed)[:, ::2] / 2 - np.arange(5) * 32
    assert (wanted == index.numpy()).all()
