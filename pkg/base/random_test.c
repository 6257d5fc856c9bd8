#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* Lanes are chosen by this hash and runs replayed by this generator: neither may change. The values come from
 * another implementation, checked against the vectors SipHash-2-4 was published with. */
static void hashes_are_stable(void **state UNUSED)
{
        static const struct {
                uint64_t seed;
                struct str text;
                uint64_t hash;
        } all[] = {
                ROW(0x0u, { "", 0 }, 0x6b3c89e238a4996eu),
                ROW(0x0u, { "a", 1 }, 0x429be242cfb091afu),
                ROW(0x0u, { "1234567", 7 }, 0x7c868d618245c35du),
                ROW(0x0u, { "12345678", 8 }, 0xa70abd2096e69e53u),
                ROW(0x0u, { "123456789", 9 }, 0x2f159b1c3310f863u),
                ROW(0x0u, { "orders/eu-west", 14 }, 0x749ff51081a6e2b8u),
                ROW(0x0u, { "\x00\xff\x80", 3 }, 0xfca54deaf0b0b8d0u),
                ROW(0x0u, { "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 64 },
                    0x9f2bd14ba895a11eu),
                ROW(0x1u, { "", 0 }, 0x5634d6aafd8c1fefu),
                ROW(0x1u, { "a", 1 }, 0xda4c87dc03dbe8bdu),
                ROW(0x1u, { "1234567", 7 }, 0xe6da4b48ab605977u),
                ROW(0x1u, { "12345678", 8 }, 0x2916dfc0849381f7u),
                ROW(0x1u, { "123456789", 9 }, 0xe03fd8596feb9e9du),
                ROW(0x1u, { "orders/eu-west", 14 }, 0x7a76b9c86f766876u),
                ROW(0x1u, { "\x00\xff\x80", 3 }, 0x53c0e71b895c98b8u),
                ROW(0x1u, { "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 64 },
                    0xac61162f6bc0bd96u),
                ROW(0xdeadbeefcafef00du, { "", 0 }, 0x3f30710196ff5d35u),
                ROW(0xdeadbeefcafef00du, { "a", 1 }, 0x363e33f783d9aac2u),
                ROW(0xdeadbeefcafef00du, { "1234567", 7 }, 0x5099dd807f7d35f1u),
                ROW(0xdeadbeefcafef00du, { "12345678", 8 }, 0xa32bd26f3040dd2fu),
                ROW(0xdeadbeefcafef00du, { "123456789", 9 }, 0xf2609cfb1b681d08u),
                ROW(0xdeadbeefcafef00du, { "orders/eu-west", 14 }, 0xf42daeba89f027cau),
                ROW(0xdeadbeefcafef00du, { "\x00\xff\x80", 3 }, 0x80dc4b9bda181779u),
                ROW(0xdeadbeefcafef00du,
                    { "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 64 },
                    0x4231ff7dd9f5d0ecu),
        };

        for (size_t i = 0; i < COUNT_OF(all); i++)
                if (hash_bytes(all[i].seed, all[i].text) != all[i].hash)
                        fail_msg("vector %zu: 0x%016llx", i,
                                 (unsigned long long)hash_bytes(all[i].seed, all[i].text));
        assert_true(hash_bytes(0, (struct str){ 0 }) == all[0].hash);
}

static void the_sequence_is_stable(void **state UNUSED)
{
        static const struct {
                uint64_t seed, values[6];
        } all[] = {
                ROW(0, { 0x99ec5f36cb75f2b4u, 0xbf6e1f784956452au, 0x1a5f849d4933e6e0u, 0x6aa594f1262d2d2cu,
                         0xbba5ad4a1f842e59u, 0xffef8375d9ebcacau }),
                ROW(42, { 0x15780b2e0c2ec716u, 0x6104d9866d113a7eu, 0xae17533239e499a1u, 0xecb8ad4703b360a1u,
                          0xfde6dc7fe2ec5e64u, 0xc50da53101795238u }),
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                struct random r;

                random_init(&r, all[i].seed);
                for (size_t j = 0; j < 6; j++)
                        assert_true(random_next(&r) == all[i].values[j]);
        }
}

/* Where a hash begins in memory does not matter, what follows it neither. */
static void a_hash_sees_its_bytes_alone(void **state UNUSED)
{
        char space[64];

        for (size_t n = 0; n < 24; n++) {
                uint64_t first = 0;

                for (size_t at = 0; at < 16; at++) {
                        memset(space, (int)at, sizeof(space));
                        for (size_t i = 0; i < n; i++)
                                space[at + i] = (char)(i * 37);
                        if (at == 0)
                                first = hash_bytes(7, (struct str){ space, n });
                        assert_true(hash_bytes(7, (struct str){ space + at, n }) == first);
                }
        }
}

static void keys_spread_over_lanes(void **state UNUSED)
{
        unsigned lanes[16] = { 0 };

        for (uint32_t i = 0; i < 16000; i++)
                lanes[hash_bytes(1, (struct str){ (const char *)&i, sizeof(i) }) % 16]++;
        for (size_t i = 0; i < 16; i++)
                assert_in_range(lanes[i], 850, 1150);
}

static void below_is_below_and_even(void **state UNUSED)
{
        unsigned seen[10] = { 0 };
        struct random r;

        random_init(&r, 3);
        assert_true(random_below(&r, 0) == 0);
        assert_true(random_below(&r, 1) == 0);
        for (int i = 0; i < 10000; i++)
                seen[random_below(&r, 10)]++;
        for (size_t i = 0; i < 10; i++)
                assert_in_range(seen[i], 850, 1150);
        for (int i = 0; i < 1000; i++)
                assert_true(random_below(&r, ((uint64_t)1 << 63) + 1) <= (uint64_t)1 << 63);
}

static void seeds_differ(void **state UNUSED) { assert_true(random_seed() != random_seed()); }

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(hashes_are_stable),           cmocka_unit_test(the_sequence_is_stable),
                cmocka_unit_test(a_hash_sees_its_bytes_alone), cmocka_unit_test(keys_spread_over_lanes),
                cmocka_unit_test(below_is_below_and_even),     cmocka_unit_test(seeds_differ),
        };
        return cmocka_run_group_tests_name("random", tests, NULL, NULL);
}
