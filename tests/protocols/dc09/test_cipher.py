"""AES-CBC, padding and keys that do not show themselves."""

import os
import pickle
import sys
import threading
import traceback
from collections.abc import Callable

import pytest
from Crypto.Cipher import AES

from protocols.dc09 import Key, cipher
from protocols.errors import KeyFormatError, Undecryptable

SECRET = "00112233445566778899AABBCCDDEEFF"


@pytest.mark.parametrize("size", [16, 24, 32])
@pytest.mark.parametrize("blocks", [1, 2, 3, 9])
def test_it_is_aes_cbc_with_a_zero_iv_message_after_message(size: int, blocks: int) -> None:
    secret, key = bytes(range(size)), Key(bytes(range(size)))
    for number in range(3):
        plain = bytes((number + n) % 256 for n in range(16 * blocks))
        sealed = AES.new(secret, AES.MODE_CBC, iv=bytes(16)).encrypt(plain)
        assert key.encrypt(plain) == sealed
        assert key.decrypt(sealed) == plain


@pytest.mark.parametrize(
    ("text", "bits"), [(SECRET, 128), (SECRET.lower() * 2, 256), ("0" * 48, 192), ("sixteen letters!", 128), ("x" * 32, 256)]
)
def test_a_key_is_read_as_people_write_it(text: str, bits: int) -> None:
    assert Key.parse(text).bits == bits


def test_thirty_two_hex_digits_are_sixteen_bytes() -> None:
    assert Key.parse(SECRET) == Key(bytes.fromhex(SECRET))
    assert hash(Key.parse(SECRET)) == hash(Key(bytes.fromhex(SECRET)))
    assert Key.parse(SECRET) != Key(bytes(16))


@pytest.mark.parametrize("text", ["", "short", "x" * 31, "é" * 16, SECRET + "0"])
def test_another_text_is_no_key_and_is_not_repeated(text: str) -> None:
    with pytest.raises(KeyFormatError) as caught:
        Key.parse(text)
    assert not text or text not in str(caught.value)


def test_a_wrong_number_of_bytes_is_no_key() -> None:
    with pytest.raises(KeyFormatError):
        Key(bytes(15))


def test_a_key_never_shows_itself() -> None:
    key = Key.parse(SECRET)
    shown = [repr(key), str(key), f"{key}", repr({"k": key})]
    try:
        raise ValueError(key)
    except ValueError:
        shown.append(traceback.format_exc())
    assert not any(SECRET in text or repr(bytes.fromhex(SECRET)) in text for text in shown)
    with pytest.raises(TypeError):
        pickle.dumps(key)


def test_a_pad_is_fresh_is_never_empty_and_holds_nothing_forbidden() -> None:
    key = Key(bytes(16))
    seen = set()
    for _ in range(300):
        sealed = cipher.seal(b"x" * 15, key)  # with the bar a whole block: sixteen bytes of pad
        assert len(sealed) == 64
        pad = key.decrypt(bytes.fromhex(sealed.decode()))[:16]
        assert not set(pad) & set(b"|[]")
        seen.add(pad)
    assert len(seen) == 300


@pytest.mark.parametrize("size", [16, 24, 32])
def test_a_stamp_by_itself_is_sealed_as_any_body_is(size: int) -> None:
    secret = os.urandom(size)
    sealed = [cipher.seal_stamp(b"_10:01:02,11-24-2026", Key(secret)) for _ in range(200)]
    assert len(set(sealed)) == 200
    plain = [AES.new(secret, AES.MODE_CBC, bytes(16)).decrypt(bytes.fromhex(text.decode())) for text in sealed]
    assert {text[10:] for text in plain} == {b"|]_10:01:02,11-24-2026"}
    assert not set(b"".join(text[:10] for text in plain)) & set(b"|[]")
    assert sealed[0] == sealed[0].upper()


def test_what_a_key_opens_does_not_depend_on_what_it_opened_before() -> None:
    key = Key(bytes(16))
    sealed = [AES.new(bytes(16), AES.MODE_CBC, iv=bytes(16)).encrypt(bytes([n]) * 16 * (n % 5 + 1)) for n in range(20)]
    for first in sealed:
        for then in sealed:
            key.decrypt(first)
            assert key.decrypt(then) == AES.new(bytes(16), AES.MODE_CBC, iv=bytes(16)).decrypt(then)


def _run_in_threads(work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)


def test_threads_may_share_a_key() -> None:
    key, wrong = Key(bytes(16)), list[bytes]()

    def work(number: int) -> None:
        for count in range(3000):
            body = b"%d/%d]" % (number, count)
            if cipher.unseal(cipher.seal(body, key), key) != body:
                wrong.append(body)

    _run_in_threads(work)
    assert wrong == []


def test_forbidden_bytes_of_the_source_are_replaced() -> None:
    key = Key(bytes(16))
    plain = key.decrypt(bytes.fromhex(cipher.seal(b"]", key, b"|[]" * 6).decode()))
    assert plain.endswith(b"|]")
    assert plain.count(b"|") == 1


@pytest.mark.parametrize("text", [b"", b"00", b"G" * 32, b"0" * 31, b"0" * 33, b"0 " * 16, b"0" * 48])
def test_ciphertext_is_whole_blocks_of_hexadecimal_text(text: bytes) -> None:
    with pytest.raises(Undecryptable):
        cipher.unseal(text, Key(bytes(16)))


def test_the_pad_of_a_null_without_a_bar_ends_at_the_bracket() -> None:
    key = Key(bytes(16))
    sealed = key.encrypt(b"p" * 11 + b"]_10:01:02,11-23-2026").hex().encode()
    assert cipher.unseal(sealed, key) == b"]_10:01:02,11-23-2026"


def test_pads_are_never_used_twice_and_hold_nothing_forbidden() -> None:
    pads = cipher._Pads()
    taken = [pads.take() for _ in range(2000)]  # five times what is fetched at once
    assert len(set(taken)) == 2000
    assert {len(pad) for pad in taken} == {10}
    assert not any(byte in pad for pad in taken for byte in b"|[]")


def test_threads_are_never_given_the_same_pad() -> None:
    pads, taken = cipher._Pads(), list[bytes]()

    def work(_: int) -> None:
        for _ in range(5000):
            taken.append(pads.take())

    _run_in_threads(work)
    assert len(set(taken)) == 20_000


def test_a_child_after_a_fork_has_other_pads_than_its_parent() -> None:
    read, write = os.pipe()
    cipher._pads.take()
    assert cipher._pads.left
    child = os.fork()
    if not child:
        os.write(write, cipher._pads.take())
        os._exit(0)
    os.waitpid(child, 0)
    with open(read, "rb", buffering=0) as theirs, open(write, "wb"):
        assert theirs.read(16) != cipher._pads.take()
