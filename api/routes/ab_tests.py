"""A/B tests of prompts and models on live users, for administrators."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

from api.dependencies import OpenBackend, new_router, requires
from api.schemas.ab_tests import (
    ABTestObject,
    ABTestReport,
    CreateABTest,
    DeletedABTest,
    ab_test_object,
    arms_of,
    report_object,
)
from api.schemas.common import ListOf, list_of, paging
from rag import ab_tests
from rag.catalog.records import PageRequest

router = new_router(tags=["ab_tests"])


@router.post("/v1/ab_tests", dependencies=[requires("admin")])
def create_ab_test(body: CreateABTest, backend: OpenBackend) -> ABTestObject:
    """Begin to spread users over arms that differ in prompt, model or both."""
    return ab_test_object(ab_tests.create(backend, body.name, arms_of(body)))


@router.get("/v1/ab_tests", dependencies=[requires("admin")])
def list_ab_tests(backend: OpenBackend, page: Annotated[PageRequest, Depends(paging)]) -> ListOf[ABTestObject]:
    """A/B tests, newest first."""
    found = ab_tests.list_tests(backend, page)
    return list_of(found, [one.public_id for one in found.rows], [ab_test_object(one) for one in found.rows])


@router.get("/v1/ab_tests/{ab_test_id}", dependencies=[requires("admin")])
def get_ab_test(ab_test_id: str, backend: OpenBackend) -> ABTestObject:
    """One A/B test."""
    return ab_test_object(ab_tests.find(backend, ab_test_id))


@router.get("/v1/ab_tests/{ab_test_id}/report", dependencies=[requires("admin")])
def report_ab_test(ab_test_id: str, backend: OpenBackend) -> ABTestReport:
    """What the arms have come to, and what their differences are worth."""
    return report_object(ab_tests.report(backend, ab_test_id))


@router.post("/v1/ab_tests/{ab_test_id}/end", dependencies=[requires("admin")])
def end_ab_test(ab_test_id: str, backend: OpenBackend) -> ABTestObject:
    """Let nobody take part any more, for good. The report stays."""
    return ab_test_object(ab_tests.end(backend, ab_test_id))


@router.delete("/v1/ab_tests/{ab_test_id}", dependencies=[requires("admin")])
def delete_ab_test(ab_test_id: str, backend: OpenBackend) -> DeletedABTest:
    """Forget an A/B test, running or not."""
    return DeletedABTest(id=ab_tests.delete(backend, ab_test_id).public_id)
