/* What the API says about records and the engine obeys: their order, and what becomes of those that fail. */
#pragma once

enum ordering { ORDERING_PARTITION, ORDERING_KEY, ORDERING_NONE };
enum on_exhausted { EXHAUSTED_BLOCK, EXHAUSTED_DEAD_LETTER, EXHAUSTED_DROP };
