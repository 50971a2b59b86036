"""How SIB-200 is asked, in each language: facts, no code.

The English and the languages' own prompts are ours, and no native speaker has
reviewed them; the topics are those of SIB-200, which names them in English
only. A language is one entry.
"""

from typing import NamedTuple

# As SIB-200 writes them, in the order of the harness.
TOPICS = (
  'science/technology',
  'travel',
  'politics',
  'sports',
  'health',
  'entertainment',
  'geography',
)


class Words(NamedTuple):
  """What is asked before all, the two cues, and the words for TOPICS.

  `comma` parts these in the question, with the space that belongs to it.
  """

  question: str
  sentence: str
  topic: str
  topics: tuple[str, ...]
  comma: str = ', '


WORDS = {
  'en': Words(
    'What is the topic of the sentence? Choose one of:',
    'Sentence:',
    'Topic:',
    TOPICS,
  ),
  'ar': Words(
    'ما موضوع الجملة؟ اختر واحدًا مما يلي:',
    'الجملة:',
    'الموضوع:',
    (
      'العلوم/التكنولوجيا',
      'السفر',
      'السياسة',
      'الرياضة',
      'الصحة',
      'الترفيه',
      'الجغرافيا',
    ),
    '، ',
  ),
  'bn': Words(
    'বাক্যটির বিষয় কী? একটি বেছে নিন:',
    'বাক্য:',
    'বিষয়:',
    (
      'বিজ্ঞান/প্রযুক্তি',
      'ভ্রমণ',
      'রাজনীতি',
      'খেলাধুলা',
      'স্বাস্থ্য',
      'বিনোদন',
      'ভূগোল',
    ),
  ),
  'gu': Words(
    'વાક્યનો વિષય શું છે? એક પસંદ કરો:',
    'વાક્ય:',
    'વિષય:',
    (
      'વિજ્ઞાન/ટેકનોલોજી',
      'પ્રવાસ',
      'રાજકારણ',
      'રમતગમત',
      'આરોગ્ય',
      'મનોરંજન',
      'ભૂગોળ',
    ),
  ),
  'hi': Words(
    'वाक्य का विषय क्या है? इनमें से एक चुनें:',
    'वाक्य:',
    'विषय:',
    (
      'विज्ञान/प्रौद्योगिकी',
      'यात्रा',
      'राजनीति',
      'खेल',
      'स्वास्थ्य',
      'मनोरंजन',
      'भूगोल',
    ),
  ),
  'id': Words(
    'Apa topik kalimat ini? Pilih salah satu:',
    'Kalimat:',
    'Topik:',
    (
      'sains/teknologi',
      'perjalanan',
      'politik',
      'olahraga',
      'kesehatan',
      'hiburan',
      'geografi',
    ),
  ),
  'ml': Words(
    'വാക്യത്തിന്റെ വിഷയം എന്താണ്? ഒന്ന് തിരഞ്ഞെടുക്കുക:',
    'വാക്യം:',
    'വിഷയം:',
    (
      'ശാസ്ത്രം/സാങ്കേതികവിദ്യ',
      'യാത്ര',
      'രാഷ്ട്രീയം',
      'കായികം',
      'ആരോഗ്യം',
      'വിനോദം',
      'ഭൂമിശാസ്ത്രം',
    ),
  ),
  'mr': Words(
    'वाक्याचा विषय कोणता आहे? यांपैकी एक निवडा:',
    'वाक्य:',
    'विषय:',
    (
      'विज्ञान/तंत्रज्ञान',
      'प्रवास',
      'राजकारण',
      'क्रीडा',
      'आरोग्य',
      'मनोरंजन',
      'भूगोल',
    ),
  ),
  'ne': Words(
    'वाक्यको विषय के हो? यीमध्ये एउटा छान्नुहोस्:',
    'वाक्य:',
    'विषय:',
    (
      'विज्ञान/प्रविधि',
      'यात्रा',
      'राजनीति',
      'खेलकुद',
      'स्वास्थ्य',
      'मनोरञ्जन',
      'भूगोल',
    ),
  ),
  'sw': Words(
    'Mada ya sentensi hii ni ipi? Chagua moja kati ya:',
    'Sentensi:',
    'Mada:',
    (
      'sayansi/teknolojia',
      'safari',
      'siasa',
      'michezo',
      'afya',
      'burudani',
      'jiografia',
    ),
  ),
  'ta': Words(
    'வாக்கியத்தின் தலைப்பு என்ன? இவற்றில் ஒன்றைத் தேர்ந்தெடுக்கவும்:',
    'வாக்கியம்:',
    'தலைப்பு:',
    (
      'அறிவியல்/தொழில்நுட்பம்',
      'பயணம்',
      'அரசியல்',
      'விளையாட்டு',
      'சுகாதாரம்',
      'பொழுதுபோக்கு',
      'புவியியல்',
    ),
  ),
  'te': Words(
    'వాక్యం యొక్క అంశం ఏమిటి? వీటిలో ఒకదాన్ని ఎంచుకోండి:',
    'వాక్యం:',
    'అంశం:',
    (
      'శాస్త్రం/సాంకేతికత',
      'ప్రయాణం',
      'రాజకీయాలు',
      'క్రీడలు',
      'ఆరోగ్యం',
      'వినోదం',
      'భౌగోళిక శాస్త్రం',
    ),
  ),
  'ur': Words(
    'جملے کا موضوع کیا ہے؟ ان میں سے ایک منتخب کریں:',
    'جملہ:',
    'موضوع:',
    (
      'سائنس/ٹیکنالوجی',
      'سفر',
      'سیاست',
      'کھیل',
      'صحت',
      'تفریح',
      'جغرافیہ',
    ),
    '، ',
  ),
  'vi': Words(
    'Chủ đề của câu là gì? Chọn một trong số:',
    'Câu:',
    'Chủ đề:',
    (
      'khoa học/công nghệ',
      'du lịch',
      'chính trị',
      'thể thao',
      'sức khỏe',
      'giải trí',
      'địa lý',
    ),
  ),
  'zh': Words(
    '这个句子的主题是什么？请从下列选项中选择一个：',
    '句子：',
    '主题：',
    ('科学/技术', '旅游', '政治', '体育', '健康', '娱乐', '地理'),
    '、',
  ),
}

_LIST = (
  'science/technology, travel, politics, sports, health, entertainment, or '
  'geography'
)
# The five of AfroBench as lm-evaluation-harness 0.4.13 writes them, {0} for the
# name of the language in English and {1} for the sentence; the languages that
# it has tasks for.
HARNESS = {
  'lmeval_1': (
    f"Given the categories {_LIST}; what category does the text: '{{1}}' "
    'belong to: \n\n'
  ),
  'lmeval_2': (
    "Does this {0} topic; '{1}' belong to one of the following categories: "
    f'{_LIST}? category only\n\n'
  ),
  'lmeval_3': (
    'You are an assistant able to classify topics in texts. \n\nGiven the '
    f'categories {_LIST}; what is the topic of the {{0}} statement below? '
    'Return only the category. \n\ntext: {1} \\category:\n\n'
  ),
  'lmeval_4': (
    f'Label the following text as {_LIST}. Provide only the category as your '
    'response. \n\ntext: {1} \\category: \n\n'
  ),
  'lmeval_5': (
    'You are tasked with performing topic classification on the following {0} '
    f'text. For each input, classify the topic as {_LIST}. Use the following '
    'guidelines: \n\n science/technology: The text discusses scientific '
    'discoveries, technological advancements, or related topics. \ntravel: The '
    'text describes travel experiences, destinations, or related topics. '
    '\npolitics: The text covers political events, policies, or related '
    'topics. \nsports: The text talks about sports events, athletes, or '
    'related topics. \nhealth: The text addresses health issues, medical '
    'advancements, or related topics. \nentertainment: The text pertains to '
    'movies, music, celebrities, or related topics. \ngeography: The text '
    'involves geographical information, locations, or related topics. \n\nIf '
    'the text contains multiple topics, choose the dominant topic. For '
    'ambiguous or unclear topics, select the category that best reflects the '
    'overall content. Please provide a single classification for each input.'
    '\n\ntext: {1} \\category: \n\n'
  ),
}
HARNESS_LANGUAGES = ('en', 'sw')
