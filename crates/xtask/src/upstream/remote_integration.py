#################################################
#      Integration tests that build remotely    #
#################################################
# Added by `cargo xtask upstream`. With ROOTCELLAR_INTEGRATION_SERVICE set, the clients of the integration tests
# execute on that server instead of in the local sandbox. (Clients of the other suites are left alone.)
from buildstream._testing import runcli


def execute_remotely(url):
    original = runcli.CliIntegration.__init__

    def initialize(self, *args, **kwargs):
        original(self, *args, **kwargs)
        services = ("execution-service", "storage-service", "action-cache-service")
        self.configure({"remote-execution": {service: {"url": url} for service in services}})

    runcli.CliIntegration.__init__ = initialize


if "ROOTCELLAR_INTEGRATION_SERVICE" in os.environ:
    execute_remotely(os.environ["ROOTCELLAR_INTEGRATION_SERVICE"])
