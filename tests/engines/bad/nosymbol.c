/* A shared object that is no plugin: it lacks xi_engine_entry. */
__attribute__((visibility("default"))) int not_an_engine(void);

int not_an_engine(void)
{
    return 1;
}
