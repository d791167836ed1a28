"""Makes the golden files of this folder with the reference implementation.

    pip install tokenizers==0.23.2 && python make.py

Trains small tokenizers of the shapes that the supported families have and writes NAME.tokenizer.json, then
cases.json: the ids that the reference gives to each text, with special tokens parsed and with special tokens as text,
and the text it makes of the first.
"""
import json
import pathlib
import random

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers, AddedToken, Regex

HERE = pathlib.Path(__file__).parent
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
THREE_DIGITS = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

TEXTS = [
    "", " ", "a", "Hello, world!", "The capital of France is Paris.", "It's they'RE I'Ve we'll DON'T 'S 'ſ 'T x'M l'D",
    "  leading and trailing  ", "a  b   c    d     e", "\n", "\n\n\n", " \n \n", "\r\n\r\n", "x\r\ny\rz", "tab\tand\t\ttabs", " \t \n\t x",
    "line one\nline two\n\n  indented\n\tand tabbed \n", "trailing spaces   \nnext", "0", "3.14159", "1234567890", "1,000,000 and 42nd ½ ² Ⅷ ٣٤٥ ४५६",
    "def f(x):\n    return {'a': [1, 2, 3]}  # comment\n\n\nfor (int i = 0; i < n; ++i) { a[i] += b->c; }",
    "https://example.org/path?query=1&b=%20#frag user@example.com C:\\dir\\file.txt", "!!! ??? ... --- === ***",
    "<div class=\"x\">&nbsp;</div>", "SELECT * FROM t WHERE a <> 'b';", "CamelCaseWordsAndSHOUTING snake_case_words kebab-case",
    "你好,世界!今天天气很好。", "日本語のテキスト、ひらがなとカタカナ。", "안녕하세요 세계", "Привет, мир! Ёлка", "Γειά σου Κόσμε ς", "مرحبا بالعالم ١٢٣", "שלום עולם", "नमस्ते दुनिया क्षत्रिय",
    "สวัสดีชาวโลก", "வணக்கம் உலகம்", "Xin chào thế giới", "Zażółć gęślą jaźń", "İstanbul ıİ ß ẞ ǅ ﬁ", "Հայերեն ქართული አማርኛ ᏣᎳᎩ", "བོད་ཡིག ខ្មែរ မြန်မာ", "𝕳𝖊𝖑𝖑𝖔 𐍈 𠜎𠜱 𓀀",
    "😀😃 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇫🇷🇩🇪 ❤️ 1️⃣ ☕", "e\u0301 vs \u00e9, A\u030a vs \u00c5, \u1e9b\u0323, \u1112\u1161\u11ab vs \ud55c", "Z\u0351\u036b\u0343a\u0329\u0300l\u0334g\u0321o\u0322", "n\u0303\u0303 \u0301leading mark",
    "\u00a0nbsp\u2003em\u3000ideographic\u200bzero\u200djoin\u2028ls\u2029ps\u0085nel\ufeffbom\u180e", "\ufeffbom first", "\u0085\u0085x \u0085", "\u000b\u000c\u001c\u001d\u001e\u001f", "\x00\x01\x02 \x7f\x80\x9f", "\u202ertl\u202c \u2066iso\u2069",
    "\ufffd \ufffe \uffff \U0010ffff", "\ue000\uf8ff private", "▁ ▁▁ a▁b ▁x", "Ġ Ċ Ġhello âĢĻ", "<0x0A> <0x41>", "\"quotes\" “curly” ‘single’ «guillemets» — – … • ™ © €",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "<s>[INST] Hi [/INST] Hello</s>", "<|endoftext|>", "<|endoftext|><|endoftext|> x<|endoftext|>", "a<|im_end|", "<|im_<|im_end|>", "<<|im_end|>>", "<unk> </s><s>", "  <|im_end|>  x  <s>  y",
    "<think>\nhm\n</think>\n\nyes", "<|user|>\nhi\n<|assistant|>\n", "[PAD] and [PAD]s word[PAD] [PAD]", "left <|strip|>   right", "<mask> a<mask>b  <mask>  c", "before\n\n  <|strip|>\t\nafter",
    "a" * 300, " " * 300, "\n" * 100, "ab" * 150, "aaab" * 80, "▁" * 60, "é" * 120, "漢" * 90, "😀" * 60, "   \n" * 40, "1" * 100, "-" * 200, "the " * 60, "123 zzz opposites 1234567", "x" + " " * 50 + "y", "\t" * 77, "aab" * 700, "漢字" * 400,
]


def random_texts(count, seed):
    """Characters of all kinds side by side, where the edges of classes and merges are."""
    rng = random.Random(seed)
    pools = ["abcdest'lv ", "    \n\r\t", "0123456789", ".,;:!?-_'\"()<>|[]", "äöüßéñç", "你好世界的", "абвгд", "مرحبا", "नमस्ते", "สวัสดี", "😀👍🏽‍❤️🇫🇷", "\u0301\u0300\u0303e", "\u00a0\u0085\u2028\ufeff\u3000", "<|im_end|>", "▁Ġ"]
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 8)):
            pool = rng.choice(pools)
            parts.append("".join(rng.choice(pool) for _ in range(rng.randint(1, 6))))
        texts.append("".join(parts))
    return texts


ENGLISH = " ".join(
    f"the {a} {b} of the {c} is in the {d}, and it isn't what they'll say; there are {i} others" for i, (a, b, c, d) in enumerate(
        zip(*[random.Random(s).choices(["capital", "river", "element", "number", "country", "symbol", "region", "answer", "question", "language", "kind", "opposite"], k=120) for s in range(4)]))
)


def corpus():
    return [t for t in TEXTS if len(set(t)) > 4] * 4 + [ENGLISH]


def train(pre_tokenizer, normalizer, size, **options):
    tokenizer = Tokenizer(models.BPE(**options.pop("model", {})))
    tokenizer.pre_tokenizer, tokenizer.normalizer = pre_tokenizer, normalizer
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=size, show_progress=False, min_frequency=2, **options))
    return json.loads(tokenizer.to_str())


def added(names, first, **flags):
    base = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return [{"id": first + i, "content": name, **base, **flags} for i, name in enumerate(names)]


def byte_level(pattern=None):
    split = [pre_tokenizers.Split(Regex(pattern), "isolated")] if pattern else []
    return pre_tokenizers.Sequence(split + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not pattern)]) if split else pre_tokenizers.ByteLevel(add_prefix_space=False)


def next_id(spec):
    return max(spec["model"]["vocab"].values()) + 1


def qwen():
    spec = train(byte_level(QWEN), normalizers.NFC(), 700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    spec["decoder"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    start = next_id(spec)
    spec["added_tokens"] = added(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], start) + added(["<think>", "</think>"], start + 3, special=False)
    return spec


def qwen_whole():
    """Groups of digits and whole entries before merges."""
    spec = train(byte_level(THREE_DIGITS), None, 500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    spec["decoder"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    spec["model"]["ignore_merges"] = True
    for word in ["Ġopposites", "123", "zzz"]:
        spec["model"]["vocab"].setdefault(word, next_id(spec))
    spec["added_tokens"] = added(["<|im_start|>", "<|im_end|>"], next_id(spec))
    return spec


def neox():
    """The shape of OLMoE: GPT-2's pieces, NFC, runs of spaces as tokens that are not special."""
    spec = train(byte_level(), normalizers.NFC(), 600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    spec["decoder"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    start = next_id(spec)
    runs = added([" " * n for n in range(24, 1, -1)], start, special=False, normalized=True)
    start += len(runs)
    spec["added_tokens"] = runs + added(["<|endoftext|>", "[PAD]", "<|strip|>", "<mask>"], start)
    spec["added_tokens"][-3]["single_word"] = True
    spec["added_tokens"][-2].update(lstrip=True, rstrip=True)
    spec["added_tokens"][-1]["lstrip"] = True
    return spec


def mixtral():
    """SentencePiece's shape: no pieces at all, "▁" for spaces, bytes for unknown characters."""
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    spec = train(pre_tokenizers.Metaspace(prepend_scheme="always", split=True), None, 900, special_tokens=["<unk>", "<s>", "</s>"] + bytes_, limit_alphabet=140, model={"unk_token": "<unk>", "byte_fallback": True, "fuse_unk": True})
    vocab, merges = spec["model"]["vocab"], spec["model"]["merges"]
    # The corpus spells special tokens out; in real vocabularies no merge makes one.
    merges[:] = [pair for pair in merges if "".join(pair) not in ("<unk>", "<s>", "</s>")]
    for n in (2, 4, 8, 16):
        half = "▁" * (n // 2)
        if half * 2 not in vocab:
            vocab[half * 2] = next_id(spec)
            merges.append([half, half])
    spec["pre_tokenizer"] = None
    spec["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    spec["decoder"] = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    spec["post_processor"] = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}], "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}
    spec["added_tokens"] = added(["<unk>", "<s>", "</s>"], 0)
    return spec


def mixtral_metaspace():
    """The same as newer files write it."""
    spec = mixtral()
    spec["normalizer"] = None
    spec["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    return spec


def unknowns():
    """No bytes to fall back to: unknown characters become one <unk> a run."""
    spec = train(pre_tokenizers.Metaspace(prepend_scheme="always", split=True), None, 300, special_tokens=["<unk>", "<s>", "</s>"], limit_alphabet=60, model={"unk_token": "<unk>", "fuse_unk": True})
    spec["decoder"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return spec


def write(path, value):
    path.write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n", encoding="utf8")


def main():
    texts = TEXTS + random_texts(120, 7)
    results = {}
    for make in (qwen, qwen_whole, neox, mixtral, mixtral_metaspace, unknowns):
        spec, name = make(), make.__name__.replace("_", "-")
        write(HERE / f"{name}.tokenizer.json", spec)
        tokenizer = Tokenizer.from_str(json.dumps(spec))
        rows = []
        for text in texts:
            tokenizer.encode_special_tokens = False
            parsed = tokenizer.encode(text, add_special_tokens=False).ids
            tokenizer.encode_special_tokens = True
            plain = tokenizer.encode(text, add_special_tokens=False).ids
            row = [parsed, tokenizer.decode(parsed, skip_special_tokens=True)]
            rows.append(row if plain == parsed else row + [plain])
        results[name] = rows
    write(HERE / "cases.json", {"texts": texts, "results": results})


if __name__ == "__main__":
    main()
