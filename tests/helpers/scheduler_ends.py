"""How a history of the scheduler's world ends, and what must hold then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.scheduler_quota import grant_quota

if TYPE_CHECKING:
    from helpers.scheduler_world import World


def come_to_rest(world: World) -> None:
    for _ in range(200):
        if not world.stored:
            break
        world.settle_again()
        world.finish_gateways()
        for request_id, client in world.clients.items():
            if client.waits_for_quota:
                grant_quota(world, request_id, reports=False)
        for worker in list(world.workers.values()):
            worker.alive = True
            if worker.draining:
                world.retire(worker)
            else:
                world.step(worker)
                world.report(worker, full=True)
        world.carry_out_all()
        world.come_back_all()
        world.pass_time(0.3)
    world.finish_gateways()
    world.carry_out_all()
    world.come_back_all()


def check_end(world: World) -> None:
    assert not world.stored, f"never ended: {world.stored}"
    states = world.machine.statistics()
    assert not states.keys() - {"timers"}, f"still live: {states}"
    assert set(world.acknowledged) == set(world.clients)
    for request_id, client in world.clients.items():
        assert not client.open, f"{request_id} never got its end"
        assert client.kept or not client.detached, f"the end of {request_id} is not kept"
        assert client.seen == list(range(len(client.seen)))
    world.ledger.check(world.clients, world.told)


def leader_dies(world: World, when: str) -> None:
    """All that can end ends, and its leader dies on the way from a record to its removal."""
    world.leader_dies = when
    for worker in list(world.workers.values()):
        world.step(worker)
    world.carry_out_all()
    world.new_leader()


def gateways_die_at_ends(world: World) -> None:
    """Their clients have seen these ends, whose results are stored, and no leader learns of it."""
    world.settles = False
    for worker in list(world.workers.values()):
        world.step(worker)
    world.settles = True
    unsettled, world.unconfirmed = world.unconfirmed, {}
    for gateway_id in {world.clients[i].gateway for i in unsettled}:
        world.kill_gateway(gateway_id)
