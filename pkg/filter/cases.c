/* The two cases of each character up to U+FFFF: what String.toLowerCase and toUpperCase with Locale.ROOT make of it in Java 17 (Unicode 13),
 * because the reference engine compares by them. A character further up has no row: it is compared as it is. */
#include "filter/value.h"

/* From first to last by step: what to add for the lower and for the upper case. */
static const struct { uint32_t first, last, step; int32_t lower, upper; } simple[] = {
        { 0x0041, 0x005a, 1, 32, 0 }, { 0x0061, 0x007a, 1, 0, -32 }, { 0x00b5, 0x00b5, 1, 0, 743 }, { 0x00c0, 0x00d6, 1, 32, 0 },
        { 0x00d8, 0x00de, 1, 32, 0 }, { 0x00e0, 0x00f6, 1, 0, -32 }, { 0x00f8, 0x00fe, 1, 0, -32 }, { 0x00ff, 0x00ff, 1, 0, 121 },
        { 0x0100, 0x012e, 2, 1, 0 }, { 0x0101, 0x012f, 2, 0, -1 }, { 0x0131, 0x0131, 1, 0, -232 }, { 0x0132, 0x0136, 2, 1, 0 },
        { 0x0133, 0x0137, 2, 0, -1 }, { 0x0139, 0x0147, 2, 1, 0 }, { 0x013a, 0x0148, 2, 0, -1 }, { 0x014a, 0x0176, 2, 1, 0 },
        { 0x014b, 0x0177, 2, 0, -1 }, { 0x0178, 0x0178, 1, -121, 0 }, { 0x0179, 0x017d, 2, 1, 0 }, { 0x017a, 0x017e, 2, 0, -1 },
        { 0x017f, 0x017f, 1, 0, -300 }, { 0x0180, 0x0180, 1, 0, 195 }, { 0x0181, 0x0181, 1, 210, 0 }, { 0x0182, 0x0184, 2, 1, 0 },
        { 0x0183, 0x0185, 2, 0, -1 }, { 0x0186, 0x0186, 1, 206, 0 }, { 0x0187, 0x0187, 1, 1, 0 }, { 0x0188, 0x0188, 1, 0, -1 },
        { 0x0189, 0x018a, 1, 205, 0 }, { 0x018b, 0x018b, 1, 1, 0 }, { 0x018c, 0x018c, 1, 0, -1 }, { 0x018e, 0x018e, 1, 79, 0 },
        { 0x018f, 0x018f, 1, 202, 0 }, { 0x0190, 0x0190, 1, 203, 0 }, { 0x0191, 0x0191, 1, 1, 0 }, { 0x0192, 0x0192, 1, 0, -1 },
        { 0x0193, 0x0193, 1, 205, 0 }, { 0x0194, 0x0194, 1, 207, 0 }, { 0x0195, 0x0195, 1, 0, 97 }, { 0x0196, 0x0196, 1, 211, 0 },
        { 0x0197, 0x0197, 1, 209, 0 }, { 0x0198, 0x0198, 1, 1, 0 }, { 0x0199, 0x0199, 1, 0, -1 }, { 0x019a, 0x019a, 1, 0, 163 },
        { 0x019c, 0x019c, 1, 211, 0 }, { 0x019d, 0x019d, 1, 213, 0 }, { 0x019e, 0x019e, 1, 0, 130 }, { 0x019f, 0x019f, 1, 214, 0 },
        { 0x01a0, 0x01a4, 2, 1, 0 }, { 0x01a1, 0x01a5, 2, 0, -1 }, { 0x01a6, 0x01a6, 1, 218, 0 }, { 0x01a7, 0x01a7, 1, 1, 0 },
        { 0x01a8, 0x01a8, 1, 0, -1 }, { 0x01a9, 0x01a9, 1, 218, 0 }, { 0x01ac, 0x01ac, 1, 1, 0 }, { 0x01ad, 0x01ad, 1, 0, -1 },
        { 0x01ae, 0x01ae, 1, 218, 0 }, { 0x01af, 0x01af, 1, 1, 0 }, { 0x01b0, 0x01b0, 1, 0, -1 }, { 0x01b1, 0x01b2, 1, 217, 0 },
        { 0x01b3, 0x01b5, 2, 1, 0 }, { 0x01b4, 0x01b6, 2, 0, -1 }, { 0x01b7, 0x01b7, 1, 219, 0 }, { 0x01b8, 0x01b8, 1, 1, 0 },
        { 0x01b9, 0x01b9, 1, 0, -1 }, { 0x01bc, 0x01bc, 1, 1, 0 }, { 0x01bd, 0x01bd, 1, 0, -1 }, { 0x01bf, 0x01bf, 1, 0, 56 },
        { 0x01c4, 0x01c4, 1, 2, 0 }, { 0x01c5, 0x01c5, 1, 1, -1 }, { 0x01c6, 0x01c6, 1, 0, -2 }, { 0x01c7, 0x01c7, 1, 2, 0 },
        { 0x01c8, 0x01c8, 1, 1, -1 }, { 0x01c9, 0x01c9, 1, 0, -2 }, { 0x01ca, 0x01ca, 1, 2, 0 }, { 0x01cb, 0x01cb, 1, 1, -1 },
        { 0x01cc, 0x01cc, 1, 0, -2 }, { 0x01cd, 0x01db, 2, 1, 0 }, { 0x01ce, 0x01dc, 2, 0, -1 }, { 0x01dd, 0x01dd, 1, 0, -79 },
        { 0x01de, 0x01ee, 2, 1, 0 }, { 0x01df, 0x01ef, 2, 0, -1 }, { 0x01f1, 0x01f1, 1, 2, 0 }, { 0x01f2, 0x01f2, 1, 1, -1 },
        { 0x01f3, 0x01f3, 1, 0, -2 }, { 0x01f4, 0x01f4, 1, 1, 0 }, { 0x01f5, 0x01f5, 1, 0, -1 }, { 0x01f6, 0x01f6, 1, -97, 0 },
        { 0x01f7, 0x01f7, 1, -56, 0 }, { 0x01f8, 0x021e, 2, 1, 0 }, { 0x01f9, 0x021f, 2, 0, -1 }, { 0x0220, 0x0220, 1, -130, 0 },
        { 0x0222, 0x0232, 2, 1, 0 }, { 0x0223, 0x0233, 2, 0, -1 }, { 0x023a, 0x023a, 1, 10795, 0 }, { 0x023b, 0x023b, 1, 1, 0 },
        { 0x023c, 0x023c, 1, 0, -1 }, { 0x023d, 0x023d, 1, -163, 0 }, { 0x023e, 0x023e, 1, 10792, 0 }, { 0x023f, 0x0240, 1, 0, 10815 },
        { 0x0241, 0x0241, 1, 1, 0 }, { 0x0242, 0x0242, 1, 0, -1 }, { 0x0243, 0x0243, 1, -195, 0 }, { 0x0244, 0x0244, 1, 69, 0 },
        { 0x0245, 0x0245, 1, 71, 0 }, { 0x0246, 0x024e, 2, 1, 0 }, { 0x0247, 0x024f, 2, 0, -1 }, { 0x0250, 0x0250, 1, 0, 10783 },
        { 0x0251, 0x0251, 1, 0, 10780 }, { 0x0252, 0x0252, 1, 0, 10782 }, { 0x0253, 0x0253, 1, 0, -210 }, { 0x0254, 0x0254, 1, 0, -206 },
        { 0x0256, 0x0257, 1, 0, -205 }, { 0x0259, 0x0259, 1, 0, -202 }, { 0x025b, 0x025b, 1, 0, -203 }, { 0x025c, 0x025c, 1, 0, 42319 },
        { 0x0260, 0x0260, 1, 0, -205 }, { 0x0261, 0x0261, 1, 0, 42315 }, { 0x0263, 0x0263, 1, 0, -207 }, { 0x0265, 0x0265, 1, 0, 42280 },
        { 0x0266, 0x0266, 1, 0, 42308 }, { 0x0268, 0x0268, 1, 0, -209 }, { 0x0269, 0x0269, 1, 0, -211 }, { 0x026a, 0x026a, 1, 0, 42308 },
        { 0x026b, 0x026b, 1, 0, 10743 }, { 0x026c, 0x026c, 1, 0, 42305 }, { 0x026f, 0x026f, 1, 0, -211 }, { 0x0271, 0x0271, 1, 0, 10749 },
        { 0x0272, 0x0272, 1, 0, -213 }, { 0x0275, 0x0275, 1, 0, -214 }, { 0x027d, 0x027d, 1, 0, 10727 }, { 0x0280, 0x0280, 1, 0, -218 },
        { 0x0282, 0x0282, 1, 0, 42307 }, { 0x0283, 0x0283, 1, 0, -218 }, { 0x0287, 0x0287, 1, 0, 42282 }, { 0x0288, 0x0288, 1, 0, -218 },
        { 0x0289, 0x0289, 1, 0, -69 }, { 0x028a, 0x028b, 1, 0, -217 }, { 0x028c, 0x028c, 1, 0, -71 }, { 0x0292, 0x0292, 1, 0, -219 },
        { 0x029d, 0x029d, 1, 0, 42261 }, { 0x029e, 0x029e, 1, 0, 42258 }, { 0x0345, 0x0345, 1, 0, 84 }, { 0x0370, 0x0372, 2, 1, 0 },
        { 0x0371, 0x0373, 2, 0, -1 }, { 0x0376, 0x0376, 1, 1, 0 }, { 0x0377, 0x0377, 1, 0, -1 }, { 0x037b, 0x037d, 1, 0, 130 },
        { 0x037f, 0x037f, 1, 116, 0 }, { 0x0386, 0x0386, 1, 38, 0 }, { 0x0388, 0x038a, 1, 37, 0 }, { 0x038c, 0x038c, 1, 64, 0 },
        { 0x038e, 0x038f, 1, 63, 0 }, { 0x0391, 0x03a1, 1, 32, 0 }, { 0x03a3, 0x03ab, 1, 32, 0 }, { 0x03ac, 0x03ac, 1, 0, -38 },
        { 0x03ad, 0x03af, 1, 0, -37 }, { 0x03b1, 0x03c1, 1, 0, -32 }, { 0x03c2, 0x03c2, 1, 0, -31 }, { 0x03c3, 0x03cb, 1, 0, -32 },
        { 0x03cc, 0x03cc, 1, 0, -64 }, { 0x03cd, 0x03ce, 1, 0, -63 }, { 0x03cf, 0x03cf, 1, 8, 0 }, { 0x03d0, 0x03d0, 1, 0, -62 },
        { 0x03d1, 0x03d1, 1, 0, -57 }, { 0x03d5, 0x03d5, 1, 0, -47 }, { 0x03d6, 0x03d6, 1, 0, -54 }, { 0x03d7, 0x03d7, 1, 0, -8 },
        { 0x03d8, 0x03ee, 2, 1, 0 }, { 0x03d9, 0x03ef, 2, 0, -1 }, { 0x03f0, 0x03f0, 1, 0, -86 }, { 0x03f1, 0x03f1, 1, 0, -80 },
        { 0x03f2, 0x03f2, 1, 0, 7 }, { 0x03f3, 0x03f3, 1, 0, -116 }, { 0x03f4, 0x03f4, 1, -60, 0 }, { 0x03f5, 0x03f5, 1, 0, -96 },
        { 0x03f7, 0x03f7, 1, 1, 0 }, { 0x03f8, 0x03f8, 1, 0, -1 }, { 0x03f9, 0x03f9, 1, -7, 0 }, { 0x03fa, 0x03fa, 1, 1, 0 },
        { 0x03fb, 0x03fb, 1, 0, -1 }, { 0x03fd, 0x03ff, 1, -130, 0 }, { 0x0400, 0x040f, 1, 80, 0 }, { 0x0410, 0x042f, 1, 32, 0 },
        { 0x0430, 0x044f, 1, 0, -32 }, { 0x0450, 0x045f, 1, 0, -80 }, { 0x0460, 0x0480, 2, 1, 0 }, { 0x0461, 0x0481, 2, 0, -1 },
        { 0x048a, 0x04be, 2, 1, 0 }, { 0x048b, 0x04bf, 2, 0, -1 }, { 0x04c0, 0x04c0, 1, 15, 0 }, { 0x04c1, 0x04cd, 2, 1, 0 },
        { 0x04c2, 0x04ce, 2, 0, -1 }, { 0x04cf, 0x04cf, 1, 0, -15 }, { 0x04d0, 0x052e, 2, 1, 0 }, { 0x04d1, 0x052f, 2, 0, -1 },
        { 0x0531, 0x0556, 1, 48, 0 }, { 0x0561, 0x0586, 1, 0, -48 }, { 0x10a0, 0x10c5, 1, 7264, 0 }, { 0x10c7, 0x10c7, 1, 7264, 0 },
        { 0x10cd, 0x10cd, 1, 7264, 0 }, { 0x10d0, 0x10fa, 1, 0, 3008 }, { 0x10fd, 0x10ff, 1, 0, 3008 }, { 0x13a0, 0x13ef, 1, 38864, 0 },
        { 0x13f0, 0x13f5, 1, 8, 0 }, { 0x13f8, 0x13fd, 1, 0, -8 }, { 0x1c80, 0x1c80, 1, 0, -6254 }, { 0x1c81, 0x1c81, 1, 0, -6253 },
        { 0x1c82, 0x1c82, 1, 0, -6244 }, { 0x1c83, 0x1c84, 1, 0, -6242 }, { 0x1c85, 0x1c85, 1, 0, -6243 }, { 0x1c86, 0x1c86, 1, 0, -6236 },
        { 0x1c87, 0x1c87, 1, 0, -6181 }, { 0x1c88, 0x1c88, 1, 0, 35266 }, { 0x1c90, 0x1cba, 1, -3008, 0 }, { 0x1cbd, 0x1cbf, 1, -3008, 0 },
        { 0x1d79, 0x1d79, 1, 0, 35332 }, { 0x1d7d, 0x1d7d, 1, 0, 3814 }, { 0x1d8e, 0x1d8e, 1, 0, 35384 }, { 0x1e00, 0x1e94, 2, 1, 0 },
        { 0x1e01, 0x1e95, 2, 0, -1 }, { 0x1e9b, 0x1e9b, 1, 0, -59 }, { 0x1e9e, 0x1e9e, 1, -7615, 0 }, { 0x1ea0, 0x1efe, 2, 1, 0 },
        { 0x1ea1, 0x1eff, 2, 0, -1 }, { 0x1f00, 0x1f07, 1, 0, 8 }, { 0x1f08, 0x1f0f, 1, -8, 0 }, { 0x1f10, 0x1f15, 1, 0, 8 },
        { 0x1f18, 0x1f1d, 1, -8, 0 }, { 0x1f20, 0x1f27, 1, 0, 8 }, { 0x1f28, 0x1f2f, 1, -8, 0 }, { 0x1f30, 0x1f37, 1, 0, 8 },
        { 0x1f38, 0x1f3f, 1, -8, 0 }, { 0x1f40, 0x1f45, 1, 0, 8 }, { 0x1f48, 0x1f4d, 1, -8, 0 }, { 0x1f51, 0x1f57, 2, 0, 8 },
        { 0x1f59, 0x1f5f, 2, -8, 0 }, { 0x1f60, 0x1f67, 1, 0, 8 }, { 0x1f68, 0x1f6f, 1, -8, 0 }, { 0x1f70, 0x1f71, 1, 0, 74 },
        { 0x1f72, 0x1f75, 1, 0, 86 }, { 0x1f76, 0x1f77, 1, 0, 100 }, { 0x1f78, 0x1f79, 1, 0, 128 }, { 0x1f7a, 0x1f7b, 1, 0, 112 },
        { 0x1f7c, 0x1f7d, 1, 0, 126 }, { 0x1fb0, 0x1fb1, 1, 0, 8 }, { 0x1fb8, 0x1fb9, 1, -8, 0 }, { 0x1fba, 0x1fbb, 1, -74, 0 },
        { 0x1fbe, 0x1fbe, 1, 0, -7205 }, { 0x1fc8, 0x1fcb, 1, -86, 0 }, { 0x1fd0, 0x1fd1, 1, 0, 8 }, { 0x1fd8, 0x1fd9, 1, -8, 0 },
        { 0x1fda, 0x1fdb, 1, -100, 0 }, { 0x1fe0, 0x1fe1, 1, 0, 8 }, { 0x1fe5, 0x1fe5, 1, 0, 7 }, { 0x1fe8, 0x1fe9, 1, -8, 0 },
        { 0x1fea, 0x1feb, 1, -112, 0 }, { 0x1fec, 0x1fec, 1, -7, 0 }, { 0x1ff8, 0x1ff9, 1, -128, 0 }, { 0x1ffa, 0x1ffb, 1, -126, 0 },
        { 0x2126, 0x2126, 1, -7517, 0 }, { 0x212a, 0x212a, 1, -8383, 0 }, { 0x212b, 0x212b, 1, -8262, 0 }, { 0x2132, 0x2132, 1, 28, 0 },
        { 0x214e, 0x214e, 1, 0, -28 }, { 0x2160, 0x216f, 1, 16, 0 }, { 0x2170, 0x217f, 1, 0, -16 }, { 0x2183, 0x2183, 1, 1, 0 },
        { 0x2184, 0x2184, 1, 0, -1 }, { 0x24b6, 0x24cf, 1, 26, 0 }, { 0x24d0, 0x24e9, 1, 0, -26 }, { 0x2c00, 0x2c2e, 1, 48, 0 },
        { 0x2c30, 0x2c5e, 1, 0, -48 }, { 0x2c60, 0x2c60, 1, 1, 0 }, { 0x2c61, 0x2c61, 1, 0, -1 }, { 0x2c62, 0x2c62, 1, -10743, 0 },
        { 0x2c63, 0x2c63, 1, -3814, 0 }, { 0x2c64, 0x2c64, 1, -10727, 0 }, { 0x2c65, 0x2c65, 1, 0, -10795 }, { 0x2c66, 0x2c66, 1, 0, -10792 },
        { 0x2c67, 0x2c6b, 2, 1, 0 }, { 0x2c68, 0x2c6c, 2, 0, -1 }, { 0x2c6d, 0x2c6d, 1, -10780, 0 }, { 0x2c6e, 0x2c6e, 1, -10749, 0 },
        { 0x2c6f, 0x2c6f, 1, -10783, 0 }, { 0x2c70, 0x2c70, 1, -10782, 0 }, { 0x2c72, 0x2c72, 1, 1, 0 }, { 0x2c73, 0x2c73, 1, 0, -1 },
        { 0x2c75, 0x2c75, 1, 1, 0 }, { 0x2c76, 0x2c76, 1, 0, -1 }, { 0x2c7e, 0x2c7f, 1, -10815, 0 }, { 0x2c80, 0x2ce2, 2, 1, 0 },
        { 0x2c81, 0x2ce3, 2, 0, -1 }, { 0x2ceb, 0x2ced, 2, 1, 0 }, { 0x2cec, 0x2cee, 2, 0, -1 }, { 0x2cf2, 0x2cf2, 1, 1, 0 },
        { 0x2cf3, 0x2cf3, 1, 0, -1 }, { 0x2d00, 0x2d25, 1, 0, -7264 }, { 0x2d27, 0x2d27, 1, 0, -7264 }, { 0x2d2d, 0x2d2d, 1, 0, -7264 },
        { 0xa640, 0xa66c, 2, 1, 0 }, { 0xa641, 0xa66d, 2, 0, -1 }, { 0xa680, 0xa69a, 2, 1, 0 }, { 0xa681, 0xa69b, 2, 0, -1 },
        { 0xa722, 0xa72e, 2, 1, 0 }, { 0xa723, 0xa72f, 2, 0, -1 }, { 0xa732, 0xa76e, 2, 1, 0 }, { 0xa733, 0xa76f, 2, 0, -1 },
        { 0xa779, 0xa77b, 2, 1, 0 }, { 0xa77a, 0xa77c, 2, 0, -1 }, { 0xa77d, 0xa77d, 1, -35332, 0 }, { 0xa77e, 0xa786, 2, 1, 0 },
        { 0xa77f, 0xa787, 2, 0, -1 }, { 0xa78b, 0xa78b, 1, 1, 0 }, { 0xa78c, 0xa78c, 1, 0, -1 }, { 0xa78d, 0xa78d, 1, -42280, 0 },
        { 0xa790, 0xa792, 2, 1, 0 }, { 0xa791, 0xa793, 2, 0, -1 }, { 0xa794, 0xa794, 1, 0, 48 }, { 0xa796, 0xa7a8, 2, 1, 0 },
        { 0xa797, 0xa7a9, 2, 0, -1 }, { 0xa7aa, 0xa7aa, 1, -42308, 0 }, { 0xa7ab, 0xa7ab, 1, -42319, 0 }, { 0xa7ac, 0xa7ac, 1, -42315, 0 },
        { 0xa7ad, 0xa7ad, 1, -42305, 0 }, { 0xa7ae, 0xa7ae, 1, -42308, 0 }, { 0xa7b0, 0xa7b0, 1, -42258, 0 }, { 0xa7b1, 0xa7b1, 1, -42282, 0 },
        { 0xa7b2, 0xa7b2, 1, -42261, 0 }, { 0xa7b3, 0xa7b3, 1, 928, 0 }, { 0xa7b4, 0xa7be, 2, 1, 0 }, { 0xa7b5, 0xa7bf, 2, 0, -1 },
        { 0xa7c2, 0xa7c2, 1, 1, 0 }, { 0xa7c3, 0xa7c3, 1, 0, -1 }, { 0xa7c4, 0xa7c4, 1, -48, 0 }, { 0xa7c5, 0xa7c5, 1, -42307, 0 },
        { 0xa7c6, 0xa7c6, 1, -35384, 0 }, { 0xa7c7, 0xa7c9, 2, 1, 0 }, { 0xa7c8, 0xa7ca, 2, 0, -1 }, { 0xa7f5, 0xa7f5, 1, 1, 0 },
        { 0xa7f6, 0xa7f6, 1, 0, -1 }, { 0xab53, 0xab53, 1, 0, -928 }, { 0xab70, 0xabbf, 1, 0, -38864 }, { 0xff21, 0xff3a, 1, 32, 0 },
        { 0xff41, 0xff5a, 1, 0, -32 },
};

/* Where a case is several characters long. */
static const struct { uint32_t character; const char *lower, *upper; } special[] = {
        { 0x00df, "\xc3\x9f", "\x53\x53" }, { 0x0130, "\x69\xcc\x87", "\xc4\xb0" }, { 0x0149, "\xc5\x89", "\xca\xbc\x4e" },
        { 0x01f0, "\xc7\xb0", "\x4a\xcc\x8c" }, { 0x0390, "\xce\x90", "\xce\x99\xcc\x88\xcc\x81" },
        { 0x03b0, "\xce\xb0", "\xce\xa5\xcc\x88\xcc\x81" }, { 0x0587, "\xd6\x87", "\xd4\xb5\xd5\x92" }, { 0x1e96, "\xe1\xba\x96", "\x48\xcc\xb1" },
        { 0x1e97, "\xe1\xba\x97", "\x54\xcc\x88" }, { 0x1e98, "\xe1\xba\x98", "\x57\xcc\x8a" }, { 0x1e99, "\xe1\xba\x99", "\x59\xcc\x8a" },
        { 0x1e9a, "\xe1\xba\x9a", "\x41\xca\xbe" }, { 0x1f50, "\xe1\xbd\x90", "\xce\xa5\xcc\x93" },
        { 0x1f52, "\xe1\xbd\x92", "\xce\xa5\xcc\x93\xcc\x80" }, { 0x1f54, "\xe1\xbd\x94", "\xce\xa5\xcc\x93\xcc\x81" },
        { 0x1f56, "\xe1\xbd\x96", "\xce\xa5\xcc\x93\xcd\x82" }, { 0x1f80, "\xe1\xbe\x80", "\xe1\xbc\x88\xce\x99" },
        { 0x1f81, "\xe1\xbe\x81", "\xe1\xbc\x89\xce\x99" }, { 0x1f82, "\xe1\xbe\x82", "\xe1\xbc\x8a\xce\x99" },
        { 0x1f83, "\xe1\xbe\x83", "\xe1\xbc\x8b\xce\x99" }, { 0x1f84, "\xe1\xbe\x84", "\xe1\xbc\x8c\xce\x99" },
        { 0x1f85, "\xe1\xbe\x85", "\xe1\xbc\x8d\xce\x99" }, { 0x1f86, "\xe1\xbe\x86", "\xe1\xbc\x8e\xce\x99" },
        { 0x1f87, "\xe1\xbe\x87", "\xe1\xbc\x8f\xce\x99" }, { 0x1f88, "\xe1\xbe\x80", "\xe1\xbc\x88\xce\x99" },
        { 0x1f89, "\xe1\xbe\x81", "\xe1\xbc\x89\xce\x99" }, { 0x1f8a, "\xe1\xbe\x82", "\xe1\xbc\x8a\xce\x99" },
        { 0x1f8b, "\xe1\xbe\x83", "\xe1\xbc\x8b\xce\x99" }, { 0x1f8c, "\xe1\xbe\x84", "\xe1\xbc\x8c\xce\x99" },
        { 0x1f8d, "\xe1\xbe\x85", "\xe1\xbc\x8d\xce\x99" }, { 0x1f8e, "\xe1\xbe\x86", "\xe1\xbc\x8e\xce\x99" },
        { 0x1f8f, "\xe1\xbe\x87", "\xe1\xbc\x8f\xce\x99" }, { 0x1f90, "\xe1\xbe\x90", "\xe1\xbc\xa8\xce\x99" },
        { 0x1f91, "\xe1\xbe\x91", "\xe1\xbc\xa9\xce\x99" }, { 0x1f92, "\xe1\xbe\x92", "\xe1\xbc\xaa\xce\x99" },
        { 0x1f93, "\xe1\xbe\x93", "\xe1\xbc\xab\xce\x99" }, { 0x1f94, "\xe1\xbe\x94", "\xe1\xbc\xac\xce\x99" },
        { 0x1f95, "\xe1\xbe\x95", "\xe1\xbc\xad\xce\x99" }, { 0x1f96, "\xe1\xbe\x96", "\xe1\xbc\xae\xce\x99" },
        { 0x1f97, "\xe1\xbe\x97", "\xe1\xbc\xaf\xce\x99" }, { 0x1f98, "\xe1\xbe\x90", "\xe1\xbc\xa8\xce\x99" },
        { 0x1f99, "\xe1\xbe\x91", "\xe1\xbc\xa9\xce\x99" }, { 0x1f9a, "\xe1\xbe\x92", "\xe1\xbc\xaa\xce\x99" },
        { 0x1f9b, "\xe1\xbe\x93", "\xe1\xbc\xab\xce\x99" }, { 0x1f9c, "\xe1\xbe\x94", "\xe1\xbc\xac\xce\x99" },
        { 0x1f9d, "\xe1\xbe\x95", "\xe1\xbc\xad\xce\x99" }, { 0x1f9e, "\xe1\xbe\x96", "\xe1\xbc\xae\xce\x99" },
        { 0x1f9f, "\xe1\xbe\x97", "\xe1\xbc\xaf\xce\x99" }, { 0x1fa0, "\xe1\xbe\xa0", "\xe1\xbd\xa8\xce\x99" },
        { 0x1fa1, "\xe1\xbe\xa1", "\xe1\xbd\xa9\xce\x99" }, { 0x1fa2, "\xe1\xbe\xa2", "\xe1\xbd\xaa\xce\x99" },
        { 0x1fa3, "\xe1\xbe\xa3", "\xe1\xbd\xab\xce\x99" }, { 0x1fa4, "\xe1\xbe\xa4", "\xe1\xbd\xac\xce\x99" },
        { 0x1fa5, "\xe1\xbe\xa5", "\xe1\xbd\xad\xce\x99" }, { 0x1fa6, "\xe1\xbe\xa6", "\xe1\xbd\xae\xce\x99" },
        { 0x1fa7, "\xe1\xbe\xa7", "\xe1\xbd\xaf\xce\x99" }, { 0x1fa8, "\xe1\xbe\xa0", "\xe1\xbd\xa8\xce\x99" },
        { 0x1fa9, "\xe1\xbe\xa1", "\xe1\xbd\xa9\xce\x99" }, { 0x1faa, "\xe1\xbe\xa2", "\xe1\xbd\xaa\xce\x99" },
        { 0x1fab, "\xe1\xbe\xa3", "\xe1\xbd\xab\xce\x99" }, { 0x1fac, "\xe1\xbe\xa4", "\xe1\xbd\xac\xce\x99" },
        { 0x1fad, "\xe1\xbe\xa5", "\xe1\xbd\xad\xce\x99" }, { 0x1fae, "\xe1\xbe\xa6", "\xe1\xbd\xae\xce\x99" },
        { 0x1faf, "\xe1\xbe\xa7", "\xe1\xbd\xaf\xce\x99" }, { 0x1fb2, "\xe1\xbe\xb2", "\xe1\xbe\xba\xce\x99" },
        { 0x1fb3, "\xe1\xbe\xb3", "\xce\x91\xce\x99" }, { 0x1fb4, "\xe1\xbe\xb4", "\xce\x86\xce\x99" },
        { 0x1fb6, "\xe1\xbe\xb6", "\xce\x91\xcd\x82" }, { 0x1fb7, "\xe1\xbe\xb7", "\xce\x91\xcd\x82\xce\x99" },
        { 0x1fbc, "\xe1\xbe\xb3", "\xce\x91\xce\x99" }, { 0x1fc2, "\xe1\xbf\x82", "\xe1\xbf\x8a\xce\x99" },
        { 0x1fc3, "\xe1\xbf\x83", "\xce\x97\xce\x99" }, { 0x1fc4, "\xe1\xbf\x84", "\xce\x89\xce\x99" },
        { 0x1fc6, "\xe1\xbf\x86", "\xce\x97\xcd\x82" }, { 0x1fc7, "\xe1\xbf\x87", "\xce\x97\xcd\x82\xce\x99" },
        { 0x1fcc, "\xe1\xbf\x83", "\xce\x97\xce\x99" }, { 0x1fd2, "\xe1\xbf\x92", "\xce\x99\xcc\x88\xcc\x80" },
        { 0x1fd3, "\xe1\xbf\x93", "\xce\x99\xcc\x88\xcc\x81" }, { 0x1fd6, "\xe1\xbf\x96", "\xce\x99\xcd\x82" },
        { 0x1fd7, "\xe1\xbf\x97", "\xce\x99\xcc\x88\xcd\x82" }, { 0x1fe2, "\xe1\xbf\xa2", "\xce\xa5\xcc\x88\xcc\x80" },
        { 0x1fe3, "\xe1\xbf\xa3", "\xce\xa5\xcc\x88\xcc\x81" }, { 0x1fe4, "\xe1\xbf\xa4", "\xce\xa1\xcc\x93" },
        { 0x1fe6, "\xe1\xbf\xa6", "\xce\xa5\xcd\x82" }, { 0x1fe7, "\xe1\xbf\xa7", "\xce\xa5\xcc\x88\xcd\x82" },
        { 0x1ff2, "\xe1\xbf\xb2", "\xe1\xbf\xba\xce\x99" }, { 0x1ff3, "\xe1\xbf\xb3", "\xce\xa9\xce\x99" },
        { 0x1ff4, "\xe1\xbf\xb4", "\xce\x8f\xce\x99" }, { 0x1ff6, "\xe1\xbf\xb6", "\xce\xa9\xcd\x82" },
        { 0x1ff7, "\xe1\xbf\xb7", "\xce\xa9\xcd\x82\xce\x99" }, { 0x1ffc, "\xe1\xbf\xb3", "\xce\xa9\xce\x99" },
        { 0xfb00, "\xef\xac\x80", "\x46\x46" }, { 0xfb01, "\xef\xac\x81", "\x46\x49" }, { 0xfb02, "\xef\xac\x82", "\x46\x4c" },
        { 0xfb03, "\xef\xac\x83", "\x46\x46\x49" }, { 0xfb04, "\xef\xac\x84", "\x46\x46\x4c" }, { 0xfb05, "\xef\xac\x85", "\x53\x54" },
        { 0xfb06, "\xef\xac\x86", "\x53\x54" }, { 0xfb13, "\xef\xac\x93", "\xd5\x84\xd5\x86" }, { 0xfb14, "\xef\xac\x94", "\xd5\x84\xd4\xb5" },
        { 0xfb15, "\xef\xac\x95", "\xd5\x84\xd4\xbb" }, { 0xfb16, "\xef\xac\x96", "\xd5\x8e\xd5\x86" },
        { 0xfb17, "\xef\xac\x97", "\xd5\x84\xd4\xbd" },
};

static unsigned char put(char *out, uint32_t c)
{
        if (c < 0x80) {
                out[0] = (char)c;
                return 1;
        }
        if (c < 0x800) {
                out[0] = (char)(0xc0 | c >> 6), out[1] = (char)(0x80 | (c & 0x3f));
                return 2;
        }
        if (c < 0x10000) {
                out[0] = (char)(0xe0 | c >> 12), out[1] = (char)(0x80 | (c >> 6 & 0x3f)), out[2] = (char)(0x80 | (c & 0x3f));
                return 3;
        }
        out[0] = (char)(0xf0 | c >> 18), out[1] = (char)(0x80 | (c >> 12 & 0x3f)), out[2] = (char)(0x80 | (c >> 6 & 0x3f)), out[3] = (char)(0x80 | (c & 0x3f));
        return 4;
}

void cases_of(uint32_t c, struct cases *out)
{
        int32_t lower = 0, upper = 0;

        for (size_t i = 0; i < COUNT_OF(special); i++)
                if (special[i].character == c) {
                        out->lower_n = (unsigned char)strlen(special[i].lower);
                        out->upper_n = (unsigned char)strlen(special[i].upper);
                        memcpy(out->lower, special[i].lower, out->lower_n);
                        memcpy(out->upper, special[i].upper, out->upper_n);
                        return;
                }
        for (size_t i = 0; i < COUNT_OF(simple) && simple[i].first <= c; i++)
                if (c <= simple[i].last && (c - simple[i].first) % simple[i].step == 0) {
                        lower = simple[i].lower;
                        upper = simple[i].upper;
                        break;
                }
        out->lower_n = put(out->lower, (uint32_t)((int32_t)c + lower));
        out->upper_n = put(out->upper, (uint32_t)((int32_t)c + upper));
}
