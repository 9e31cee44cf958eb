"""The list of planted faults fits the kernels. Planting them takes minutes: `make faults`."""

from pathlib import Path

import pytest

from faults import FAULTS

KERNELS = Path(__file__).parents[2] / "kernels" / "stn_kernels"
HERE = Path(__file__).parent


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_the_fault_can_be_planted_and_its_test_exists(fault):
    assert (KERNELS / fault.file).read_text().count(fault.old) == 1
    assert fault.old != fault.new
    file, _, test = fault.caught_by.partition("::")
    assert f"def {test.partition('[')[0]}(" in (HERE / file).read_text()


def test_there_are_twenty_or_more():
    assert len({(fault.file, fault.old) for fault in FAULTS}) >= 20
