"""What every store must do, as tests: `PLUME_TEST_STORES=URL,URL pytest --pyargs plume.memory.conformance`.

The stores are named by their URLs, separated by commas; without any, the one in memory is tested. Each test works with
tenants of its own, so a store may hold other things. With `PLUME_REQUIRE_SERVICES=1` a store that cannot be opened is a
failure; otherwise its tests are skipped and say why. With a key in the environment (`PLUME_STORE_KEY`) they are sealed.
For another set of stores, override the fixture `url`.
"""
