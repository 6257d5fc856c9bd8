#include "tests/sim/world.h"

static const struct scenario scenarios[] = {
        { .name = "any" },
};

const struct scenario *scenario_find(const char *name)
{
        for (size_t i = 0; i < COUNT_OF(scenarios); i++)
                if (strcmp(scenarios[i].name, name) == 0)
                        return &scenarios[i];
        return NULL;
}

const struct scenario *scenario_of(uint64_t seed)
{
        for (size_t i = 0; i < COUNT_OF(scenarios); i++)
                if (scenarios[i].every && seed % scenarios[i].every == 0)
                        return &scenarios[i];
        return NULL;
}
