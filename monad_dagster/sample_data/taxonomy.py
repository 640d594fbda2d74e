"""Words and numbers of the sample's catalogue: product types, colors, indexes, sections, archetypes.

The columns and the style of the values follow the files of Kaggle's H&M competition; every
product, price and customer made from them is invented. Data only: no logic lives here.
"""

from typing import NamedTuple


class ProductType(NamedTuple):
    """One product type with the habits that the generator gives it.

    Attributes:
        number: `product_type_no`.
        name: `product_type_name`.
        group: `product_group_name`.
        garment: Key of `GARMENT_GROUPS`.
        euros: Median shelf price.
        peak_day: Day of the year on which demand peaks.
        amplitude: Strength of the season; 0 sells evenly all year.
        repeat: How readily the same article is bought again, 0 to 1.
        weight: Share of the catalogue, relative.
        indexes: Codes of the indexes that carry it.
    """

    number: int
    name: str
    group: str
    garment: int
    euros: float
    peak_day: int
    amplitude: float
    repeat: float
    weight: float
    indexes: str


class Color(NamedTuple):
    """One color group with its perceived value and master color."""

    code: int
    name: str
    value_id: int
    value_name: str
    master_id: int
    master_name: str
    weight: float


class Archetype(NamedTuple):
    """A kind of customer: which indexes it shops, its age, and its habits."""

    index_weights: dict[str, float]
    age_mean: float
    age_spread: float
    log_rate: float
    log_hazard: float
    online: float
    share: float


UPPER, LOWER, FULL = "Garment Upper body", "Garment Lower body", "Garment Full body"
UNDER, SHOES, SWIM = "Underwear", "Shoes", "Swimwear"
SOCKS, NIGHT, ACCESSORIES = "Socks & Tights", "Nightwear", "Accessories"

GARMENT_GROUPS = {
    1002: "Jersey Basic",
    1003: "Knitwear",
    1005: "Jersey Fancy",
    1007: "Outdoor",
    1008: "Dressed",
    1009: "Trousers",
    1010: "Blouses",
    1011: "Shirts",
    1012: "Skirts",
    1013: "Dresses Ladies",
    1016: "Trousers Denim",
    1017: "Under-, Nightwear",
    1018: "Swimwear",
    1019: "Accessories",
    1020: "Shoes",
    1021: "Socks and Tights",
    1025: "Shorts",
}

PRODUCT_TYPES = (
    ProductType(255, "T-shirt", UPPER, 1002, 9.99, 172, 0.7, 0.8, 7.5, "ADFGHIS"),
    ProductType(253, "Vest top", UPPER, 1002, 6.99, 180, 1.1, 0.9, 3.0, "ADBHS"),
    ProductType(254, "Top", UPPER, 1005, 12.99, 150, 0.4, 0.6, 4.5, "ADHIS"),
    ProductType(252, "Sweater", UPPER, 1003, 24.99, 325, 1.3, 0.4, 8.5, "ADFGHI"),
    ProductType(245, "Cardigan", UPPER, 1003, 24.99, 295, 0.9, 0.4, 2.5, "ADGH"),
    ProductType(308, "Hoodie", UPPER, 1005, 24.99, 300, 0.8, 0.5, 2.5, "DFHIS"),
    ProductType(258, "Blouse", UPPER, 1010, 19.99, 120, 0.5, 0.5, 4.0, "AD"),
    ProductType(259, "Shirt", UPPER, 1011, 24.99, 130, 0.4, 0.5, 3.4, "ADFHI"),
    ProductType(262, "Jacket", UPPER, 1007, 49.99, 285, 1.1, 0.1, 4.0, "ADFGHIS"),
    ProductType(263, "Coat", UPPER, 1007, 79.99, 300, 1.7, 0.1, 1.4, "AD"),
    ProductType(264, "Blazer", UPPER, 1008, 49.99, 250, 0.5, 0.2, 1.1, "ADF"),
    ProductType(272, "Trousers", LOWER, 1009, 29.99, 265, 0.4, 0.5, 9.0, "ADFGHIS"),
    ProductType(270, "Jeans", LOWER, 1016, 39.99, 260, 0.5, 0.6, 3.0, "ADFHI"),
    ProductType(273, "Leggings/Tights", LOWER, 1002, 14.99, 20, 0.4, 0.8, 2.0, "AGHS"),
    ProductType(274, "Shorts", LOWER, 1025, 17.99, 185, 1.8, 0.5, 4.0, "ADFGHIS"),
    ProductType(275, "Skirt", LOWER, 1012, 19.99, 160, 0.7, 0.4, 2.7, "ADHI"),
    ProductType(265, "Dress", FULL, 1013, 29.99, 165, 1.2, 0.3, 9.0, "ADGHI"),
    ProductType(267, "Jumpsuit/Playsuit", FULL, 1013, 34.99, 170, 1.1, 0.2, 1.2, "ADG"),
    ProductType(306, "Bra", UNDER, 1017, 17.99, 40, 0.2, 0.9, 2.4, "BS"),
    ProductType(286, "Underwear bottom", UNDER, 1017, 9.99, 35, 0.2, 1.0, 2.6, "BF"),
    ProductType(283, "Bodysuit", UPPER, 1002, 9.99, 30, 0.2, 0.8, 1.4, "BG"),
    ProductType(298, "Bikini top", SWIM, 1018, 17.99, 175, 2.6, 0.4, 1.6, "BDS"),
    ProductType(59, "Swimwear bottom", SWIM, 1018, 12.99, 175, 2.6, 0.5, 1.5, "BDFHS"),
    ProductType(57, "Swimsuit", SWIM, 1018, 24.99, 172, 2.4, 0.3, 0.8, "BGHJ"),
    ProductType(302, "Socks", SOCKS, 1021, 4.99, 340, 0.4, 1.0, 2.0, "BFGHJ"),
    ProductType(304, "Underwear Tights", SOCKS, 1021, 7.99, 320, 1.3, 1.0, 1.2, "BJ"),
    ProductType(296, "Pyjama set", NIGHT, 1017, 19.99, 345, 0.9, 0.5, 1.6, "BGHI"),
    ProductType(297, "Night gown", NIGHT, 1017, 14.99, 180, 0.3, 0.5, 0.6, "B"),
    ProductType(66, "Bag", ACCESSORIES, 1019, 19.99, 140, 0.2, 0.2, 1.4, "CFJ"),
    ProductType(70, "Earring", ACCESSORIES, 1019, 5.99, 340, 0.3, 0.6, 1.5, "C"),
    ProductType(80, "Scarf", ACCESSORIES, 1019, 12.99, 325, 1.9, 0.3, 1.1, "CFJ"),
    ProductType(69, "Hat/beanie", ACCESSORIES, 1019, 9.99, 330, 1.5, 0.3, 1.3, "CFGJ"),
    ProductType(74, "Hair/alice band", ACCESSORIES, 1019, 3.99, 160, 0.2, 0.7, 0.9, "CJ"),
    ProductType(67, "Belt", ACCESSORIES, 1019, 9.99, 160, 0.1, 0.3, 0.6, "CF"),
    ProductType(81, "Sunglasses", ACCESSORIES, 1019, 9.99, 170, 1.7, 0.2, 0.7, "CJ"),
    ProductType(87, "Boots", SHOES, 1020, 49.99, 305, 1.7, 0.2, 0.8, "ACFJ"),
    ProductType(94, "Sneakers", SHOES, 1020, 29.99, 105, 0.4, 0.4, 1.4, "CFHJS"),
    ProductType(93, "Sandals", SHOES, 1020, 24.99, 168, 2.2, 0.3, 1.1, "CFJ"),
)

COLORS = (
    Color(9, "Black", 4, "Dark", 5, "Black", 22.0),
    Color(10, "White", 3, "Light", 9, "White", 9.0),
    Color(11, "Off White", 1, "Dusty Light", 9, "White", 3.5),
    Color(73, "Dark Blue", 4, "Dark", 2, "Blue", 11.0),
    Color(72, "Blue", 2, "Medium Dusty", 2, "Blue", 4.0),
    Color(71, "Light Blue", 1, "Dusty Light", 2, "Blue", 4.0),
    Color(51, "Light Pink", 1, "Dusty Light", 4, "Pink", 5.0),
    Color(52, "Pink", 5, "Bright", 4, "Pink", 2.5),
    Color(12, "Light Beige", 1, "Dusty Light", 11, "Beige", 4.5),
    Color(13, "Beige", 2, "Medium Dusty", 11, "Beige", 3.0),
    Color(7, "Grey", 1, "Dusty Light", 12, "Grey", 4.5),
    Color(8, "Dark Grey", 4, "Dark", 12, "Grey", 3.0),
    Color(6, "Light Grey", 3, "Light", 12, "Grey", 2.0),
    Color(42, "Red", 5, "Bright", 18, "Red", 2.5),
    Color(43, "Dark Red", 4, "Dark", 18, "Red", 2.0),
    Color(19, "Greenish Khaki", 2, "Medium Dusty", 20, "Khaki green", 3.0),
    Color(93, "Dark Green", 4, "Dark", 19, "Green", 2.0),
    Color(92, "Green", 5, "Bright", 19, "Green", 1.2),
    Color(22, "Yellow", 5, "Bright", 8, "Yellow", 1.8),
    Color(21, "Light Yellow", 1, "Dusty Light", 8, "Yellow", 1.0),
    Color(32, "Orange", 5, "Bright", 3, "Orange", 1.2),
    Color(31, "Light Orange", 1, "Dusty Light", 3, "Orange", 1.0),
    Color(61, "Light Purple", 1, "Dusty Light", 6, "Lilac Purple", 0.9),
    Color(17, "Yellowish Brown", 2, "Medium Dusty", 13, "Brown", 1.6),
    Color(5, "Gold", 6, "Undefined", 15, "Metal", 1.0),
    Color(3, "Silver", 6, "Undefined", 15, "Metal", 0.8),
)

APPEARANCES = (
    (1010016, "Solid", 47.0),
    (1010001, "All over pattern", 16.0),
    (1010010, "Melange", 6.0),
    (1010017, "Stripe", 5.0),
    (1010023, "Denim", 4.5),
    (1010014, "Placement print", 4.0),
    (1010004, "Check", 3.0),
    (1010026, "Other structure", 2.5),
    (1010006, "Dot", 1.5),
    (1010021, "Lace", 1.5),
    (1010011, "Metallic", 1.0),
)

# code: (index_name, index_group_no, index_group_name, share of the catalogue)
INDEXES = {
    "A": ("Ladieswear", 1, "Ladieswear", 25.0),
    "B": ("Lingeries/Tights", 1, "Ladieswear", 7.0),
    "C": ("Ladies Accessories", 1, "Ladieswear", 7.0),
    "D": ("Divided", 2, "Divided", 15.0),
    "F": ("Menswear", 3, "Menswear", 12.0),
    "G": ("Baby Sizes 50-98", 4, "Baby/Children", 9.0),
    "H": ("Children Sizes 92-140", 4, "Baby/Children", 11.0),
    "I": ("Children Sizes 134-170", 4, "Baby/Children", 8.0),
    "J": ("Children Accessories, Swimwear", 4, "Baby/Children", 4.0),
    "S": ("Sport", 26, "Sport", 4.0),
}

SECTIONS = {
    "A": ((15, "Ladies Everyday Collection"), (11, "Ladies Tailoring"), (6, "Ladies Casual")),
    "B": ((61, "Ladies Lingerie"), (62, "Ladies Nightwear, Socks & Tigh")),
    "C": ((64, "Ladies Shoes"), (66, "Ladies Small accessories"), (65, "Ladies Big accessories")),
    "D": ((53, "Divided Collection"), (51, "Divided Basics"), (52, "Divided Complements Other")),
    "F": ((21, "Contemporary Street"), (26, "Men Underwear"), (23, "Men Suits & Tailoring")),
    "G": ((40, "Baby Essentials & Complements"), (41, "Baby Boy"), (42, "Baby Girl")),
    "H": ((44, "Kids Boy"), (45, "Kids Girl"), (46, "Kids & Baby Shoes")),
    "I": ((77, "Young Girl"), (47, "Young Boy")),
    "J": ((43, "Kids Outerwear"), (79, "Girls Underwear & Basics")),
    "S": ((5, "Ladies H&M Sport"), (28, "Men H&M Sport")),
}

ARCHETYPES = (
    Archetype({"D": 0.6, "A": 0.15, "B": 0.1, "C": 0.1, "S": 0.05}, 22, 4, 0.1, 0.55, 0.80, 2.6),
    Archetype({"A": 0.65, "B": 0.12, "C": 0.1, "D": 0.08, "S": 0.05}, 48, 11, 0.0, -0.25, 0.6, 2.4),
    Archetype({"A": 0.6, "C": 0.2, "D": 0.15, "B": 0.05}, 30, 6, 0.35, 0.1, 0.75, 2.0),
    Archetype({"F": 0.85, "S": 0.15}, 36, 10, -0.4, 0.15, 0.55, 1.0),
    Archetype({"G": 0.6, "H": 0.2, "A": 0.2}, 31, 4, 0.3, 0.0, 0.7, 0.9),
    Archetype({"H": 0.35, "I": 0.35, "J": 0.1, "A": 0.2}, 41, 6, 0.15, -0.35, 0.65, 1.0),
    Archetype({"S": 0.5, "A": 0.2, "F": 0.15, "B": 0.15}, 33, 8, -0.1, 0.2, 0.75, 0.6),
    Archetype({"B": 0.6, "A": 0.3, "C": 0.1}, 40, 12, -0.2, -0.1, 0.5, 0.9),
)

SYLLABLES = [
    "al",
    "an",
    "ba",
    "bel",
    "bo",
    "ca",
    "ci",
    "da",
    "del",
    "el",
    "em",
    "fa",
    "fi",
    "ga",
    "gi",
    "ha",
    "il",
    "ja",
    "jo",
    "ka",
    "ki",
    "la",
    "le",
    "li",
    "lo",
    "lu",
    "ma",
    "me",
    "mi",
    "mo",
    "na",
    "ni",
    "no",
    "ol",
    "pa",
    "pi",
    "ra",
    "re",
    "ri",
    "ro",
    "sa",
    "se",
    "si",
    "so",
    "ta",
    "ti",
    "to",
    "va",
    "ve",
    "vi",
    "wi",
    "yo",
    "za",
]

FITS = ("Relaxed-fit", "Slim-fit", "Regular-fit", "Oversized", "Short", "Long", "Fitted", "Loose")
FABRICS = (
    "soft cotton jersey",
    "a fine-knit cotton blend",
    "crisp woven cotton",
    "airy viscose",
    "a soft wool blend",
    "recycled polyester",
    "stretch fabric",
    "linen blend",
)
DETAILS = (
    "ribbing around the neckline",
    "a concealed zip at one side",
    "side pockets",
    "a gathered seam at the waist",
    "long sleeves with buttoned cuffs",
    "an elasticated waistband",
    "a straight-cut hem",
    "dropped shoulders",
    "decorative stitching",
    "a small embroidered motif",
)
