"""Made-up texts of three kinds that people bring: many intents, another script, long reviews.

Every text comes from a grammar and a seed; none was ever sent. What a class is made of stands in
the words, so that TF-IDF does well: the texts are to tell one pre-training from another, not to
show what only a transformer can read.
"""

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

Texts = list[tuple[str, str]]
"""Labels and texts."""

Label = TypeVar("Label")

SUBJECTS = {
    "card_payment": ("card payment", "payment at the till", "purchase with my card"),
    "transfer": ("transfer", "bank transfer", "money I sent to a friend"),
    "cash": ("cash withdrawal", "money from the ATM", "withdrawal at the cash machine"),
    "top_up": ("top-up", "top up of my account", "topping up"),
    "exchange": ("currency exchange", "exchange into euros", "swap from pounds to dollars"),
    "direct_debit": ("direct debit", "debit for my rent", "debit of the phone company"),
    "standing_order": ("standing order", "regular payment", "monthly order"),
    "refund": ("refund", "money back from the shop", "reimbursement"),
    "cheque": ("cheque", "check I paid in", "cheque from my aunt"),
    "contactless": ("contactless payment", "tap to pay", "payment with my phone"),
    "abroad": ("payment abroad", "international payment", "payment to another country"),
}
ISSUES = {
    "declined": (
        "my {s} was declined", "why did you refuse the {s}", "the {s} keeps failing",
        "the {s} would not go through this morning", "I get an error for the {s}, what is wrong",
    ),
    "pending": (
        "my {s} is still pending", "the {s} has not arrived after {n} days", "where is my {s}",
        "the {s} does not show yet", "I am still waiting for the {s} from last week",
    ),
    "fee": (
        "why is there a fee for the {s}", "I was charged extra for my {s}", "what does a {s} cost",
        "is the {s} free of charge", "you took {n} pounds on top of the {s}",
    ),
    "cancel": (
        "how do I cancel the {s}", "please stop my {s}", "I want to undo the {s}",
        "can the {s} be taken back", "that {s} was a mistake, can you revert it",
    ),
    "limit": (
        "what is the limit of a {s}", "how much can a {s} be at most", "is there a maximum {s}",
        "can I raise the ceiling for the {s}", "how many times a day may I do a {s}",
    ),
    "twice": (
        "my {s} was taken twice", "I see the {s} two times", "there is a duplicate of the {s}",
        "the {s} is on my statement twice", "you have booked the same {s} again",
    ),
    "unknown": (
        "I do not recognise the {s}", "there is a {s} that I never made", "who did this {s}",
        "a {s} on my account is not mine", "somebody else must have done that {s}",
    ),
}  # fmt: skip
AROUND = (
    "{}", "{}?", "Hi, {}.", "{}, please help", "Hello! {}", "{}. Thanks", "I need to know: {}",
    "{}. I looked in the app but found nothing", "Since yesterday I ask myself, {}",
    "My {o} is fine, but {}", "{}. It is not about the {o}", "sorry to bother you, {}",
)  # fmt: skip


def requests(n: int, seed: int) -> Texts:
    """Return `n` requests to a bank in 77 classes: 11 subjects by 7 issues, about 11 words."""
    draw = random.Random(seed)  # noqa: S311
    labels = [(s, i) for s in SUBJECTS for i in ISSUES]

    def text(label: tuple[str, str]) -> str:
        subject, issue = label
        said = draw.choice(ISSUES[issue]).format(s=draw.choice(SUBJECTS[subject]), n=_number(draw))
        other = draw.choice(SUBJECTS[draw.choice(list(SUBJECTS))])
        return _misspelt(draw.choice(AROUND).format(said, o=other), draw)

    return [(f"{s}_{i}", text((s, i))) for s, i in _dealt(labels, n, draw)]


THINGS = ("원피스", "운동화", "가방", "이어폰", "책상", "화장품", "커피", "텀블러", "이불", "모자")
KOREAN: dict[str, tuple[str, ...]] = {
    "배송": (
        "{t}{ga} 아직 안 왔어요", "배송이 언제쯤 될까요", "{n}일째 배송 중이라고만 나와요",
        "택배 기사님이 {t}{eul} 엉뚱한 곳에 두고 가셨네요", "출고가 왜 이렇게 늦어지나요",
        "{t} 배송지를 바꾸고 싶은데 가능한가요", "송장 번호가 조회되지 않습니다",
    ),
    "환불": (
        "{t}{eul} 환불하고 싶어요", "반품 접수했는데 돈이 안 들어왔어요", "환불은 며칠 걸리나요",
        "{t}{ga} 찢어져서 왔어요 환불해 주세요", "교환 말고 돈으로 돌려받을 수 있나요",
        "{n}일 전에 취소했는데 카드 취소가 안 됐습니다", "반품 배송비는 누가 내나요",
    ),
    "로그인": (
        "비밀번호를 잊어버렸어요", "인증 번호가 오지 않아요", "로그인이 계속 안 돼요",
        "계정이 잠겼다고 나오는데 어떻게 하나요", "휴대폰을 바꿨더니 앱에 들어갈 수가 없네요",
        "{n}번 틀렸다고 접속이 막혔어요", "아이디를 찾고 싶습니다",
    ),
    "상품": (
        "{t} 사이즈가 어떻게 되나요", "{t} 다른 색상도 있나요", "{t}{ga} 언제 다시 들어오나요",
        "{t}{eun} 세탁기에 돌려도 되나요", "{t} 재질이 궁금합니다", "{t} 무게가 얼마나 되나요",
        "{n}개 사면 할인되나요",
    ),
    "칭찬": (
        "{t}{ga} 정말 마음에 들어요", "상담원분이 너무 친절하셨어요", "덕분에 잘 해결됐습니다",
        "포장이 꼼꼼해서 기분이 좋았어요", "{t} 품질이 생각보다 훨씬 좋네요",
        "{n}번째 구매인데 늘 만족합니다", "다음에도 또 살게요",
    ),
}  # fmt: skip
POLITE = (
    "{}", "안녕하세요 {}", "{} 빨리 답변 부탁드려요", "{} ㅠㅠ", "{}!!", "저기요, {}",
    "{} 감사합니다", "어제 {t} 주문했는데요 {}", "문의드립니다. {}", "{} 확인해 주세요",
)  # fmt: skip
PARTICLES = {"ga": ("이", "가"), "eul": ("을", "를"), "eun": ("은", "는")}
"""Forms of a particle after a consonant and after a vowel."""


def korean(n: int, seed: int) -> Texts:
    """Return `n` messages to a shop in Korean, in five classes, about 20 characters."""
    draw = random.Random(seed)  # noqa: S311

    def text(label: str) -> str:
        thing = draw.choice(THINGS)
        vowel = (ord(thing[-1]) - 0xAC00) % 28 == 0
        forms = {name: pair[vowel] for name, pair in PARTICLES.items()}
        said = draw.choice(KOREAN[label]).format(t=thing, n=_number(draw), **forms)
        return draw.choice(POLITE).format(said, t=draw.choice(THINGS))

    return [(label, text(label)) for label in _dealt(list(KOREAN), n, draw)]


ASPECTS = (
    "room", "breakfast", "staff", "bed", "bathroom", "view", "location", "pool", "bar", "lobby",
)  # fmt: skip
OPINIONS = {
    "good": (
        "The {a} was better than anything we had hoped for.", "I could not stop praising the {a}.",
        "What a lovely {a}, clean and quiet at every hour of the day.",
        "They had clearly put thought and care into the {a}.", "The {a} alone is worth the trip.",
        "Nobody in our group had a single complaint about the {a}.",
    ),
    "bad": (
        "The {a} was a disappointment from the first hour.", "I have rarely seen a worse {a}.",
        "What a dreary {a}, loud and dirty at every hour of the day.",
        "Nobody seems to have looked after the {a} for years.", "The {a} alone ruined the trip.",
        "Everybody in our group had something to complain of about the {a}.",
    ),
}  # fmt: skip
TOLD = (
    "We arrived on a {d} after {n} hours in the train and walked over from the station.",
    "It was our {n}th visit to the town, so we knew our way around the old quarter.",
    "On {d} we took the bus to the coast and came back when it was already dark.",
    "The {a} is on the {n}th floor, next to the lift and opposite the stairs.",
    "My sister had booked {n} nights through the website and paid the deposit in advance.",
    "There is a small supermarket around the corner that is open until midnight.",
    "At the desk they asked for our passports and gave us a map with the {a} marked on it.",
    "It rained until {d}, so we played cards and read the papers in the {a}.",
    "Somebody told us that the house was a school until about {n} years ago.",
)
VERDICTS = {
    "good": "All in all we would come back at once and have told all our friends to go.",
    "mixed": "All in all it has two sides, and whether to go depends on what matters to you.",
    "bad": "All in all we would not come back and have told all our friends to stay away.",
}
SHARE_OF_PRAISE = {"good": 0.7, "mixed": 0.5, "bad": 0.3}


def reviews(n: int, seed: int) -> Texts:
    """Return `n` hotel reviews in three classes, about 400 words, often with a last verdict."""
    draw = random.Random(seed)  # noqa: S311

    def text(label: str) -> str:
        sentences = []
        for _ in range(draw.randint(26, 38)):
            if draw.random() < 0.4:
                kind = "good" if draw.random() < SHARE_OF_PRAISE[label] else "bad"
                sentences.append(draw.choice(OPINIONS[kind]))
            else:
                sentences.append(draw.choice(TOLD))
        if draw.random() < 0.6:
            sentences.append(VERDICTS[label])
        days = ("Monday", "Wednesday", "Friday", "Sunday")
        filled = (
            s.format(a=draw.choice(ASPECTS), n=_number(draw), d=draw.choice(days))
            for s in sentences
        )
        return " ".join(filled)

    return [(label, text(label)) for label in _dealt(list(VERDICTS), n, draw)]


KINDS: dict[str, Callable[[int, int], Texts]] = {
    "requests": requests,
    "korean": korean,
    "reviews": reviews,
}
"""Who writes what, by the name of the kind."""


def _dealt(labels: Sequence[Label], n: int, draw: random.Random) -> list[Label]:
    """Return `n` labels, every one as often as the others but for one, in a random order."""
    dealt = [labels[i % len(labels)] for i in range(n)]
    draw.shuffle(dealt)
    return dealt


def _number(draw: random.Random) -> int:
    return draw.randint(2, 9)


def _misspelt(text: str, draw: random.Random) -> str:
    """Return the text, in one of five cases without one of its characters, in one without case."""
    if draw.random() < 0.2:
        at = draw.randrange(len(text))
        text = text[:at] + text[at + 1 :]
    return text.lower() if draw.random() < 0.2 else text
