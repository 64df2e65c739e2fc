"""What the whole suite shares: real servers, who may start them, a network of their own for some tests."""

pytest_plugins = ["pytester", "tests.servers.tiers", "tests.servers.own_network", "tests.servers.shared"]
