"""Sentences with labelled personal data in many scripts, made for this benchmark. The people and hosts are fictional.

Each script has e-mail addresses, telephone numbers and IP addresses as its writers use them: between letters without
spaces, before particles and case endings, next to its own punctuation and in its own digits. Other sentences only look
like they have such data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["KINDS", "Sentence", "sentences"]

KINDS = {"E": "EMAIL_ADDRESS", "P": "PHONE_NUMBER", "I": "IP_ADDRESS"}
"""The placeholders in the sentences."""

EMAILS = (
    "info@example.com",
    "jo.smith+news@mail.example.org",
    "a_b-c@example.co.th",
    "12345@qq.com",
    "x1@sub.example.de",
    "sales@shop-24.io",
)
ADDRESSES = ("192.168.1.1", "203.0.113.9", "10.0.0.254", "2001:db8::1", "198.51.100.77", "fe80::1ff:fe23:4567:890a")

SENTENCES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # telephone numbers, and sentences
    "Latin": (
        ("+44 20 7946 0958", "(206) 555-0100", "06 12 34 56 78", "030/1234567"),
        (
            "Write to {E}, or call {P}.",
            "The server at {I} answered <{E}> after two days.",
            "Schreiben Sie an {E}-Adresse oder rufen Sie {P} an.",
            "Írjon az {E}-ra, vagy hívja: tel. {P}.",
            "Sähköposti {E}:iin tai puhelin {P}.",
            "E-posta: {E}'dan, IP={I}, tel: {P}",
            "https://example.com/form?mail={E}&lang=en",
            "From {I} - - [01/Jan] GET /index.html; see _{E}_",
            "The picture logo@2x.png and icon@3x.webp come with version 1.2.3.4 of pkg@2.0.0-rc.1.",
            "Chrome/120.0.0.0, Version=4.0.0.0, § 3.2.1.1, EC 3.4.21.4, user@file.py, git@github.com:org/repo.git",
            "4.2.1.3 Results follow section 3.2.1.1; the release 2.4.6.8 costs $1,234,567.89.",
        ),
    ),
    "Chinese": (
        ("13812345678", "010-12345678", "138 1234 5678", "（010）12345678", "0755-12345678", "400-123-4567"),
        (
            "邮箱：{E}，请联系。",
            "请发邮件到{E}。谢谢！",
            "手机：{P}。",
            "欢迎致电{P}咨询，或发送至{E}索取资料。",
            "服务器IP地址{I}无法访问",
            "地址为{I}，联系电话{P}，电子邮箱{E}。",
            "「{E}」是我的邮箱，电话是{P}、IP是{I}。",
            "图片logo@2x.png和icon@3x.jpg在版本1.2.3.4中，见第3.2.1.1节。",
            "2023年收入12345678元，编号20231224。",
        ),
    ),
    "Japanese": (
        ("03-1234-5678", "090-1234-5678", "（03）1234-5678", "0120-123-456", "03(1234)5678"),
        (
            "メールは{E}まで。",
            "お問い合わせは{P}へ、または{E}にご連絡ください。",
            "サーバーのアドレスは{I}です。",
            "電話番号：{P}、メール：{E}",
            "連絡先は{P}（平日）または{E}（いつでも）です",
            "バージョン1.2.3.4のlogo@2x.pngは3.2.1.1節にあります。",
        ),
    ),
    "Korean": (
        ("010-1234-5678", "02-123-4567", "+82 10-1234-5678", "1588-1234"),
        (
            "연락처 {P}로 전화 주세요.",
            "이메일은 {E}으로 보내 주세요.",
            "문의:{E}이나 전화{P}번입니다.",
            "서버 {I}에서 응답이 없습니다.",
            "주소는{I}이고 메일은{E}입니다.",
            "버전 1.2.3.4의 icon@2x.png 파일은 제3.2.1.1절에 있습니다.",
        ),
    ),
    "Thai": (
        ("02-123-4567", "081-234-5678", "0812345678", "๐๘๑-๒๓๔-๕๖๗๘"),
        (
            "อีเมล{E}ครับ",
            "ติดต่อ{E}หรือโทร{P}ได้เลย",
            "เบอร์{P}ค่ะ",
            "เซิร์ฟเวอร์{I}ไม่ตอบ",
            "เวอร์ชัน1.2.3.4มีไฟล์logo@2x.pngอยู่",
        ),
    ),
    "Lao": (
        ("020 5551 2345", "021 412 345"),
        ("ອີເມວ{E}ໄດ້", "ໂທ{P}ໄດ້ທຸກມື້", "ເຄື່ອງ{I}ບໍ່ຕອບ", "ຮູບlogo@2x.pngຢູ່ນີ້"),
    ),
    "Khmer": (
        ("012 345 678", "០១២ ៣៤៥ ៦៧៨"),
        ("អ៊ីមែល{E}។", "ទូរស័ព្ទ{P}។", "ម៉ាស៊ីន{I}មិនឆ្លើយ", "រូបlogo@2x.pngនៅទីនេះ"),
    ),
    "Myanmar": (
        ("09-421234567", "၀၉-၄၂၁၂၃၄၅၆၇"),
        ("အီးမေးလ်{E}သို့", "ဖုန်း{P}သို့ခေါ်ပါ။", "ဆာဗာ{I}ကို", "ပုံlogo@2x.pngတွင်"),
    ),
    "Arabic": (
        ("0501234567", "+966 50 123 4567", "٠٥٠١٢٣٤٥٦٧", "۰۲۱-۸۸۷۷۶۶۵۵"),
        (
            "راسلنا على {E}، أو اتصل على {P}.",
            "البريد:{E}؛ الهاتف:{P}؟",
            "الخادم و{I}لا يجيب",
            "\u200f{E}\u200f هو بريدي",
            "تماس با {P} یا ایمیل {E}ـ",
            "الإصدار 1.2.3.4 وفيه logo@2x.png",
        ),
    ),
    "Hebrew": (
        ("050-1234567", "03-1234567", "+972 50-123-4567"),
        (
            "כתבו ל{E} או ל-{E}.",
            "טלפון: {P}, נייד{P}",
            "השרת ב{I}לא עונה",
            "גרסה 1.2.3.4 עם logo@2x.png",
        ),
    ),
    "Devanagari": (
        ("9876543210", "+91 98765 43210", "९८७६५४३२१०", "011-23456789"),
        (
            "ईमेल{E}पर लिखें।",
            "फ़ोन {P}पर कॉल करें।",
            "मोबाइल:{P}।",
            "सर्वर{I}काम नहीं करता",
            "संस्करण 1.2.3.4 में logo@2x.png है।",
        ),
    ),
    "Bengali": (
        ("01712-345678", "০১৭১২-৩৪৫৬৭৮"),
        ("ইমেল{E}ঠিকানায় লিখুন।", "ফোন {P}নম্বরে", "সার্ভার{I}থেকে"),
    ),
    "Tamil": (("044-23456789", "98765 43210"), ("மின்னஞ்சல்{E}க்கு", "தொலைபேசி {P}இல்", "சேவையகம்{I}இல்")),
    "Cyrillic": (
        ("8 912 345-67-89", "+7 (912) 345-67-89", "044-123-4567"),
        (
            "Пишите на{E}или звоните по тел.{P}.",
            "Почта:{E}; телефон:{P}",
            "Сервер{I}не отвечает",
            "Версия 1.2.3.4, раздел 3.2.1.1, файл logo@2x.png",
        ),
    ),
    "Greek": (
        ("210 123 4567", "+30 210 123 4567"),
        ("Γράψτε στο{E}ή καλέστε τηλ. {P}.", "Ο διακομιστής{I}δεν απαντά", "έκδοση 1.2.3.4, logo@2x.png"),
    ),
    "Georgian": (("032 212 3456",), ("ელფოსტა{E}ზე", "ტელეფონი: {P}ზე", "სერვერი{I}ზე")),
    "Ethiopic": (("011-123-4567",), ("ኢሜይል{E}ነው።", "ስልክ {P}ነው።", "አድራሻ{I}ነው።")),
}
FULL_WIDTH = {character: character + 0xFEE0 for character in range(0x21, 0x7F)} | {0x20: 0x3000}


@dataclass(frozen=True)
class Sentence:
    """A text and its labels."""

    script: str
    text: str
    spans: tuple[tuple[int, int, str], ...]


def sentences() -> Iterator[Sentence]:
    """All sentences: each pattern with several values, and the Chinese and Japanese ones also in full width."""
    for script, (phones, patterns) in SENTENCES.items():
        values = {"E": EMAILS, "P": phones, "I": ADDRESSES}
        for number, pattern in enumerate(patterns):
            for turn in range(6 if "{" in pattern else 1):
                yield _filled(script, pattern, values, number + turn)
    for script in ("Chinese", "Japanese"):
        phones, patterns = SENTENCES[script]
        values = {"E": EMAILS, "P": phones, "I": ADDRESSES}
        wide = {kind: tuple(value.translate(FULL_WIDTH) for value in some) for kind, some in values.items()}
        for number, pattern in enumerate(pattern for pattern in patterns if "{" in pattern):
            yield from (_filled("full width", pattern, wide, number + turn) for turn in range(6))


def _filled(script: str, pattern: str, values: dict[str, tuple[str, ...]], turn: int) -> Sentence:
    text, spans = "", []
    for part in re.split(r"\{([EPI])\}", pattern):
        if part in KINDS:
            value = values[part][turn % len(values[part])]
            spans.append((len(text), len(text) + len(value), KINDS[part]))
            text += value
            turn += 1
        else:
            text += part
    return Sentence(script, text, tuple(spans))
